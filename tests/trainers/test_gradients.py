import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp


def test_mean_over_two_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    import gradient_ranks

    mp.spawn(gradient_ranks.average_on_rank, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        both, one, none = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert both == [1.5, 3.0]
        assert one == [2.0, 2.0], "absent on one rank counts as zero"
        assert none is None, "absent everywhere stays absent"
