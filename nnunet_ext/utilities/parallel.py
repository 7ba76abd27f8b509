"""One function over many cases in worker processes: ordered results, a progress bar, no hang."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any, TypeVar

from tqdm import tqdm

from nnunet_ext.utilities.errors import UsageError

T = TypeVar("T")


def run_parallel(
    function: Callable[..., T],
    items: Sequence[tuple[Any, ...]],
    processes: int,
    description: str,
    quiet: bool = False,
    done: Callable[[int, T], str] | None = None,
) -> list[T]:
    """``[function(*item) for item in items]``, in `processes` spawned workers (in this process if 1).

    `done(index, result)` is called here as soon as an item is finished, in any order; what it returns stands beside the
    progress bar.

    An exception of one item cancels the rest and is raised here, as is Ctrl-C, after the running items have ended.

    Raises:
        UsageError: a worker died (killed, out of memory).
    """
    bar = tqdm(total=len(items), desc=description, disable=True if quiet else None)
    with bar:
        if processes == 1 or len(items) < 2:
            results = []
            for index, item in enumerate(items):
                results.append(function(*item))
                _advance(bar, index, results[-1], done)
            return results
        executor = ProcessPoolExecutor(min(processes, len(items)), get_context("spawn"), _prepare_worker)
        try:
            futures = {executor.submit(function, *item): index for index, item in enumerate(items)}
            for future in as_completed(futures):
                _advance(bar, futures[future], future.result(), done)
            return [future.result() for future in futures]
        except BrokenProcessPool:
            raise UsageError(
                f"a worker process died while {description} (killed, or out of memory?); try again with a smaller -np"
            ) from None
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _advance(bar: Any, index: int, result: T, done: Callable[[int, T], str] | None) -> None:
    if done is not None:
        bar.set_postfix_str(done(index, result), refresh=False)
    bar.update()


def _prepare_worker() -> None:
    # Ctrl-C reaches the whole process group; the parent alone decides what happens, so workers stay silent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers, which would wait for work for good."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
