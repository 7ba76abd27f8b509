"""Work in other processes that ends when it should: with the first failure, and with this process."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.pool import AsyncResult
from typing import Any

from nnunet_ext.utilities.errors import UsageError

Task = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function and its arguments; both cross process boundaries."""


def run_tasks(tasks: Iterable[Task], num_processes: int) -> list[Any]:
    """Results of all tasks, in order. Tasks are drawn while workers are free, at most two ahead of them; 0 processes:
    each runs here when it is drawn.

    Raises:
        UsageError: a worker was killed.
        Exception: of the first task seen to fail; the rest is dropped.
    """
    if num_processes == 0:
        return [function(*arguments) for function, arguments in tasks]
    context = multiprocessing.get_context("spawn")
    # Ctrl-C reaches every process of the terminal; this one alone answers it.
    with context.Pool(num_processes, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        workers = list(pool._pool)  # type: ignore[attr-defined]
        results: list[AsyncResult[Any]] = []
        for function, arguments in tasks:
            results.append(pool.apply_async(function, arguments))
            _wait(results, workers, allowed=num_processes + 2)
        _wait(results, workers, allowed=0)
        return [result.get() for result in results]


def _wait(results: Sequence[AsyncResult[Any]], workers: Sequence[Any], allowed: int) -> None:
    """Until no more than `allowed` results are outstanding; raises what a finished one raised."""
    while True:
        outstanding = [result for result in results if not result.ready()]
        for result in results:
            if result.ready():
                result.get()
        if len(outstanding) <= allowed:
            return
        if not all(worker.is_alive() for worker in workers):
            raise UsageError("a process was killed, most likely for lack of memory; use fewer processes (-nps 1)")
        outstanding[0].wait(0.1)


@contextmanager
def no_process_left_on_error() -> Iterator[None]:
    """On any exception, Ctrl-C included, end the child processes that were started inside."""
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        started = set(multiprocessing.active_children()) - before
        for process in started:
            process.terminate()
        for process in started:
            process.join()
        raise
