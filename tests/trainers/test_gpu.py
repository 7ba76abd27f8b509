import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import Workspace

from nnunet_ext.trainers.uci import UCITrainer
from nnunet_ext.utilities.files import load_json


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("compiled", ["f", "t"])
def test_mixed_precision_and_compiled_training(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, compiled: str
) -> None:
    monkeypatch.setenv("nnUNet_compile", compiled)
    plans = load_json(workspace.preprocessed / "nnUNetPlans_tiny.json")
    dataset_json = load_json(workspace.preprocessed / "dataset.json")
    trainer = UCITrainer(copy.deepcopy(plans), "3d_fullres", 0, dataset_json, torch.device("cuda"))
    trainer.run_training()
    assert np.isfinite(trainer.logger.local_logger.my_fantastic_logging["loss/ct"]).all()
    assert trainer.grad_scaler.get_scale() > 0
    again = UCITrainer(plans, "3d_fullres", 0, dataset_json, torch.device("cuda"))
    again.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    assert all(bool(value.isfinite().all()) for value in again.network.state_dict().values())
