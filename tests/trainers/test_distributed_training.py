import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.multiprocessing as mp
from toy import Workspace


@pytest.mark.slow
def test_two_ranks_train_one_network(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    import trainer_ranks

    mp.spawn(trainer_ranks.train_on_rank, (str(workspace.preprocessed), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert any(value.abs().sum() > 0 for name, value in first.items() if name.endswith("prototypes"))
    model = workspace.root / "nnUNet_results" / workspace.target / "UCITrainer__nnUNetPlans_tiny__3d_fullres" / "fold_0"
    assert list(pd.read_csv(model / "progress.csv").epoch) == [0, 1], "one rank alone writes"
    checkpoint = torch.load(model / "checkpoint_final.pth", weights_only=True)
    assert len(checkpoint["nnunet_ext"]["random"]) == 2
