import operator
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.parallel import run_parallel


@pytest.mark.parametrize("processes", [1, 2])
def test_results_keep_the_order_of_the_items(processes):
    items = [(base, 2) for base in range(8)]
    assert run_parallel(pow, items, processes, "squaring", quiet=True) == [base**2 for base in range(8)]


@pytest.mark.parametrize("processes", [1, 2])
def test_exception_of_an_item_is_raised(processes):
    with pytest.raises(ZeroDivisionError):
        run_parallel(operator.truediv, [(1, 1), (1, 0)], processes, "dividing", quiet=True)


def test_dead_worker_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "lethal.py").write_text("import os\ndef die(item):\n    os._exit(9)\n")
    monkeypatch.syspath_prepend(tmp_path)
    from lethal import die

    start = time.monotonic()
    with pytest.raises(UsageError, match=r"a worker process died while dying .* smaller -np"):
        run_parallel(die, [(i,) for i in range(4)], 2, "dying", quiet=True)
    assert time.monotonic() - start < 30


def test_no_item():
    assert run_parallel(pow, [], 3, "nothing", quiet=True) == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_a_parent_that_is_killed(end):
    code = "import time; from nnunet_ext.utilities.parallel import run_parallel\n"
    code += "if __name__ == '__main__': run_parallel(time.sleep, [(60,), (60,)], 2, 'Waiting', True)"
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    workers = _until(lambda: [pid for pid in children.read_text().split() if "spawn_main" in _command_line(pid)][1:])
    time.sleep(1)  # the second one too is past its imports
    parent.send_signal(end)
    parent.wait(20)
    assert _until(lambda: not any(_command_line(pid) for pid in workers)), "workers are still there"


def _command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return found
