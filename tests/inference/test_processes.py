import math
import multiprocessing
import os
import time

import pytest

from nnunet_ext.inference.processes import no_process_left_on_error, run_tasks
from nnunet_ext.utilities.errors import UsageError


@pytest.mark.parametrize("num_processes", [0, 2])
def test_results_come_in_the_order_of_the_tasks(num_processes):
    assert run_tasks(((math.sqrt, (n * n,)) for n in range(9)), num_processes) == list(range(9))


@pytest.mark.parametrize("num_processes", [0, 1])
def test_the_first_failure_ends_the_run(num_processes):
    drawn = []

    def tasks():
        for n in range(1000):
            drawn.append(n)
            yield math.sqrt, (-1,)

    with pytest.raises(ValueError):
        run_tasks(tasks(), num_processes)
    assert len(drawn) < 10


def test_a_killed_worker_is_reported():
    with pytest.raises(UsageError, match="killed"):
        run_tasks([(os._exit, (1,))], 1)


def test_children_end_with_an_error_and_others_stay():
    context = multiprocessing.get_context("spawn")
    outside = context.Process(target=time.sleep, args=(60,))
    outside.start()
    try:
        with pytest.raises(KeyboardInterrupt), no_process_left_on_error():
            inside = context.Process(target=time.sleep, args=(60,))
            inside.start()
            raise KeyboardInterrupt
        assert not inside.is_alive()
        assert outside.is_alive()
    finally:
        outside.terminate()
        outside.join()
