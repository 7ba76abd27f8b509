import operator
import time

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
