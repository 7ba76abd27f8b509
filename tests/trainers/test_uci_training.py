"""UCITrainer from end to end: the host's command line, resume, prediction without X-rays."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from toy import Workspace, command, weights

from nnunet_ext.trainers.uci import UCITrainer
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json, save_json


def make_trainer(workspace: Workspace, trainer: type[UCITrainer] = UCITrainer, **settings: Any) -> UCITrainer:
    made: UCITrainer = workspace.trainer(trainer, "nnUNetPlans_tiny", **settings)
    return made


def test_train_then_predict_without_xrays_by_the_hosts_commands(workspace: Workspace) -> None:
    arguments = ("998", "3d_fullres", "0", "-tr", "UCITrainer", "-p", "nnUNetPlans_tiny", "-device", "cpu")
    command("nnUNetv2_train", *arguments)
    model = workspace.root / "nnUNet_results" / workspace.target / "UCITrainer__nnUNetPlans_tiny__3d_fullres"
    fold = model / "fold_0"
    progress = pd.read_csv(fold / "progress.csv")
    assert list(progress.epoch) == [0, 1]
    assert np.isfinite(progress[["loss/xray", "loss/ct"]]).all(axis=None)
    assert np.allclose(progress.train_losses, progress["loss/xray"] + progress["loss/ct"], atol=1e-4)
    assert (fold / "losses.png").stat().st_size > 1000 and (fold / "progress.png").exists()
    assert "Epoch 2/2: xray" in next(fold.glob("training_log*")).read_text()
    assert (fold / "validation" / "summary.json").exists()
    assert not list(fold.glob(".*")), "no temporary file stays"
    assert "nnUNetv2_train 998 3d_fullres 0 -tr UCITrainer" in load_json(fold / "run.json")["command"]
    (picture,) = load_json(fold / "pictures" / "pictures.json")
    assert "of 8 prototypes used" in picture["alt"] and (fold / "pictures" / picture["file"]).stat().st_size > 5000

    checkpoint = torch.load(fold / "checkpoint_final.pth", weights_only=True)
    assert checkpoint["trainer_name"] == "UCITrainer"
    settings = load_json(model / "plans.json")["nnunet_ext"]["UCITrainer"]
    assert settings["num_xray_classes"] == 2 and settings["xray_classes"] == ["dark", "bright"]

    shutil.rmtree(workspace.root / "nnUNet_raw" / workspace.xrays)
    shutil.rmtree(workspace.root / "nnUNet_preprocessed" / workspace.xrays)
    images, output = workspace.raw / "imagesTs", workspace.root / "predicted"
    command("nnUNetv2_predict", "-i", images, "-o", output, "-d", "998", "-c", "3d_fullres", *arguments[3:], "-f", "0")
    segmentation = sitk.ReadImage(output / "toy_005.nii.gz")
    assert segmentation.GetSize() == (32, 36, 16)
    assert set(np.unique(sitk.GetArrayFromImage(segmentation))) <= {0, 1}


class Killed(UCITrainer):
    """Dies in the middle of the second epoch."""

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return super().train_step(batch)


Killed.__name__ = "UCITrainer"  # the folder of the results


def test_killed_and_continued_equals_not_killed(workspace: Workspace) -> None:
    whole = make_trainer(workspace, num_epochs=3)
    whole.run_training()
    expected = weights(whole)
    progress = pd.read_csv(Path(whole.output_folder) / "progress.csv")
    shutil.rmtree(whole.output_folder)

    killed = make_trainer(workspace, Killed, num_epochs=3)
    with pytest.raises(KeyboardInterrupt):
        killed.run_training()
    continued = make_trainer(workspace, num_epochs=3)
    continued.load_checkpoint(str(Path(killed.output_folder) / "checkpoint_latest.pth"))
    assert continued.current_epoch == 1
    continued.run_training()

    for name, value in weights(continued).items():
        assert torch.equal(value, expected[name]), name
    resumed = pd.read_csv(Path(continued.output_folder) / "progress.csv")
    pd.testing.assert_frame_equal(resumed.drop(columns="epoch_seconds"), progress.drop(columns="epoch_seconds"))


def test_banks_are_in_the_checkpoint_and_come_back(workspace: Workspace) -> None:
    trainer = make_trainer(workspace, num_epochs=1)
    trainer.run_training()
    banks = {name: value for name, value in weights(trainer).items() if "prototypes" in name}
    assert banks and any(bank.abs().sum() > 0 for bank in banks.values())
    fresh = make_trainer(workspace, num_epochs=1)
    fresh.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    for name, bank in banks.items():
        assert torch.equal(fresh.network.state_dict()[name], bank), name


def test_streams_are_closed_after_an_error(workspace: Workspace) -> None:
    trainer = make_trainer(workspace, Killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()
    closed = []
    for stream in trainer.streams.values():
        assert stream._iterator is None
        closed.append(stream)
    assert closed


def test_ct_only_needs_no_xrays(workspace: Workspace) -> None:
    dataset_json = load_json(workspace.preprocessed / "dataset.json")
    del dataset_json["nnunet_ext"]
    save_json(dataset_json, workspace.preprocessed / "dataset.json")
    trainer = make_trainer(workspace, ablation="ct_only", num_epochs=1)
    trainer.run_training()
    assert trainer.streams == {}
    assert "loss/xray" not in trainer.logger.local_logger.my_fantastic_logging


@pytest.mark.parametrize("ablation", ["separate_encoders", "no_kc", "no_kc_no_ki", "no_warmup"])
def test_every_ablation_takes_a_step(workspace: Workspace, ablation: str) -> None:
    trainer = make_trainer(workspace, ablation=ablation, num_epochs=1, num_iterations_per_epoch=1)
    trainer.run_training()
    assert np.isfinite(trainer.logger.local_logger.my_fantastic_logging["loss/ct"][0])


def test_other_linked_classes_are_noticed_on_resume(workspace: Workspace) -> None:
    trainer = make_trainer(workspace, num_epochs=1)
    trainer.run_training()
    checkpoint = str(Path(trainer.output_folder) / "checkpoint_final.pth")
    wider = make_trainer(workspace, num_epochs=1, num_prototypes=9)
    with pytest.raises(UsageError, match="was trained with num_prototypes=8, but the plans .* now say 9"):
        wider.load_checkpoint(checkpoint)
    longer = make_trainer(workspace, num_epochs=2)
    longer.load_checkpoint(checkpoint)
    assert "settings changed since the checkpoint" in Path(longer.log_file).read_text()


def test_norms_and_embeddings_are_not_decayed_unless_asked(workspace: Workspace) -> None:
    trainer = make_trainer(workspace)
    trainer.initialize()
    decayed, kept = trainer.optimizer.param_groups
    names = {parameter: name for name, parameter in trainer.network.named_parameters()}
    assert decayed["weight_decay"] > 0 == kept["weight_decay"]
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    kept_names = {names[p] for p in kept["params"]}
    assert sum("position_embeddings" in name for name in kept_names) == 4 + 4 + 3  # CT, X-ray, decoder
    assert "encoder.branches.xray.class_token" in kept_names
    assert not [names[p] for p in decayed["params"] if "position" in names[p] or "token" in names[p]]
    literal = make_trainer(workspace, decay_norm_and_bias=True)
    literal.initialize()
    assert len(literal.optimizer.param_groups) == 1


# ---- what a user can get wrong ------------------------------------------------------------------------------------


def test_missing_relation_names_the_command(workspace: Workspace) -> None:
    dataset_json = load_json(workspace.preprocessed / "dataset.json")
    del dataset_json["nnunet_ext"]
    save_json(dataset_json, workspace.preprocessed / "dataset.json")
    with pytest.raises(UsageError, match="nnunet_ext link 998 --xray"):
        make_trainer(workspace)


def test_unprepared_cache_names_the_command(workspace: Workspace) -> None:
    shutil.rmtree(workspace.root / "nnUNet_preprocessed" / workspace.xrays)
    with pytest.raises(UsageError, match="nnunet_ext link"):
        make_trainer(workspace)


def test_class_count_mismatch(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="num_xray_classes=14, but the linked X-rays have 2 classes"):
        make_trainer(workspace, num_xray_classes=14)


def test_wrong_setting_and_2d_configuration(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="no setting 'prototypes'"):
        make_trainer(workspace, prototypes=3)
    plans = load_json(workspace.preprocessed / "nnUNetPlans_tiny.json")
    with pytest.raises(UsageError, match="UCITrainer cannot train configuration 2d.*use -c 3d_fullres"):
        UCITrainer(plans, "2d", 0, load_json(workspace.preprocessed / "dataset.json"), torch.device("cpu"))


def test_unusable_pretrained_weights_are_named(workspace: Workspace, tmp_path: Path) -> None:
    torch.save({"student": {"something": torch.zeros(3)}}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    with pytest.raises(UsageError, match=r"pretrained_unimiss='.*absent.pth' is not a file"):
        make_trainer(workspace, pretrained_unimiss=str(tmp_path / "absent.pth"))
    for name, reason in (("text.pth", ""), ("other.pth", "less than 50%")):
        path = str(tmp_path / name)
        trainer = make_trainer(workspace, pretrained_unimiss=path)
        with pytest.raises(UsageError, match=f"pretrained_unimiss='{path}' cannot be used: .*{reason}"):
            trainer.run_training()


def test_nothing_is_created_when_it_cannot_start(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError):
        make_trainer(workspace, num_epochs=0)
    assert not list((workspace.root / "nnUNet_results").iterdir())
    plans = load_json(workspace.preprocessed / "nnUNetPlans_tiny.json")
    monkeypatch.delenv("nnUNet_results")
    with pytest.raises(UsageError, match="nnUNet_results is not set; run: export nnUNet_results="):
        UCITrainer(plans, "3d_fullres", 0, load_json(workspace.preprocessed / "dataset.json"), torch.device("cpu"))
