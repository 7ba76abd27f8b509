"""MAMLTrainer from end to end: two channels, the host's command line, resume, dropout, ablations, regions."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
import torch.multiprocessing as mp
from toy import FOLDERS, Workspace, command, weights
from toy_maml import Watched

from nnunet_ext.cli.main import main
from nnunet_ext.trainers.maml import MAMLTrainer
from nnunet_ext.trainers.maml_modalities import GateMonitor, draw_subsets
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json, save_json

PLANS = "nnUNetPlans_maml"
TINY = ("num_epochs=2", "num_iterations_per_epoch=3", "num_val_iterations_per_epoch=1", "save_every=1", "seed=1")
REGIONS = {"labels": {"background": 0, "whole": [1, 2], "core": [2]}, "regions_class_order": [1, 2]}


def write_toy_phases(folder: Path, num_cases: int = 5) -> None:
    """Two channels, 16 x 36 x 32 voxels: a box (label 1) that the first shows and its core (2), which the second
    shows."""
    for sub in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / sub).mkdir(parents=True)
    for case in range(num_cases + 1):
        generator = np.random.default_rng(case)
        label = np.zeros((16, 36, 32), np.uint8)
        z, y, x = generator.integers(2, (6, 16, 14))
        label[z : z + 8, y : y + 14, x : x + 12] = 1
        label[z + 2 : z + 6, y + 3 : y + 11, x + 3 : x + 9] = 2
        test = case == num_cases
        for channel, shown in enumerate((label > 0, label == 2)):
            image = generator.normal(0, 50, label.shape) + 300 * shown
            write(folder / f"images{'Ts' if test else 'Tr'}" / f"toy_{case:03d}_{channel:04d}.nii.gz", image)
        if not test:
            write(folder / "labelsTr" / f"toy_{case:03d}.nii.gz", label)
    content = {
        "channel_names": {"0": "arterial", "1": "venous"},
        "labels": {"background": 0, "box": 1, "core": 2},
        "numTraining": num_cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def write(path: Path, array: Any) -> None:
    volume = sitk.GetImageFromArray(array if array.dtype == np.uint8 else array.astype(np.float32))
    volume.SetSpacing((1.5, 1.5, 3.0))
    sitk.WriteImage(volume, path)


@pytest.fixture(scope="module")
def phases(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The toy phases, preprocessed, with plans for MAMLTrainer."""
    workspace = Workspace(tmp_path_factory.mktemp("maml") / "nnunet", target="Dataset994_Phases")
    environment = {name: str(workspace.root / name) for name in FOLDERS}
    for folder in environment.values():
        Path(folder).mkdir(parents=True)
    environment |= {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1", "OMP_NUM_THREADS": "1"}
    write_toy_phases(workspace.raw)
    arguments = ("-d", 994, "-c", "3d_fullres", "--verify_dataset_integrity", "-np", 1, "-npfp", 1)
    command("nnUNetv2_plan_and_preprocess", *arguments, **environment)
    shape = ("--patch-size", 16, 32, 32, "--batch-size", 2, "--features", 4, 8, 8)
    plan = ("plan", "-d", 994, "--quiet", "-tr", "MAMLTrainer", "--name", "maml", *shape, "--set", *TINY)
    command("nnunet_ext", *plan, **environment)
    return workspace


@pytest.fixture
def workspace(phases: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of the toy phases' folders as the current nnU-Net folders."""
    return phases.copied(tmp_path / "nnunet", monkeypatch)


def make_trainer(workspace: Workspace, trainer: type[MAMLTrainer] = MAMLTrainer, **settings: Any) -> MAMLTrainer:
    made: MAMLTrainer = workspace.trainer(trainer, PLANS, **settings)
    return made


def change_dataset(workspace: Workspace, changes: dict[str, Any]) -> None:
    for folder in (workspace.raw, workspace.preprocessed):
        save_json({**load_json(folder / "dataset.json"), **changes}, folder / "dataset.json")


def logged(trainer: MAMLTrainer, group: str) -> dict[str, list[float]]:
    series = trainer.logger.local_logger.my_fantastic_logging
    return {key.split("/")[1]: values for key, values in series.items() if key.startswith(f"{group}/")}


def batch(seed: int = 0, num_labels: int = 3) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 2, 16, 32, 32, generator=generator)
    labels = [torch.randint(num_labels, (2, 1, *size), generator=generator) for size in ((16, 32, 32), (16, 16, 16))]
    return {"data": images, "target": labels}


# ---- from end to end ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("regions", [False, True])
def test_train_then_predict_by_the_hosts_commands(workspace: Workspace, regions: bool) -> None:
    if regions:
        change_dataset(workspace, REGIONS)
    arguments = ("994", "3d_fullres", "0", "-tr", "MAMLTrainer", "-p", PLANS, "-device", "cpu")
    command("nnUNetv2_train", *arguments)
    model = workspace.root / "nnUNet_results" / workspace.target / f"MAMLTrainer__{PLANS}__3d_fullres"
    progress = pd.read_csv(model / "fold_0" / "progress.csv")
    terms = ["loss/joint", "loss/intra_arterial", "loss/intra_venous"]
    assert np.isfinite(progress[terms]).all(axis=None)
    assert np.allclose(progress.train_losses, progress[terms].sum(axis=1), atol=1e-4)
    assert progress[["attention/arterial", "attention/venous"]].apply(lambda s: s.between(0.01, 0.99)).all(axis=None)
    settings = load_json(model / "plans.json")["nnunet_ext"]["MAMLTrainer"]
    assert settings["modalities"] == {"arterial": [0], "venous": [1]} and settings["region_targets"] is regions

    images, output = workspace.raw / "imagesTs", workspace.root / "predicted"
    shutil.rmtree(workspace.root / "nnUNet_preprocessed")
    command("nnUNetv2_predict", "-i", images, "-o", output, "-d", "994", "-c", "3d_fullres", *arguments[3:], "-f", "0")
    assert sitk.ReadImage(output / "toy_005.nii.gz").GetSize() == (32, 36, 16)


class Killed(MAMLTrainer):
    """Dies in the middle of the second epoch."""

    steps = 0

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.steps += 1
        if self.steps == 5:
            raise KeyboardInterrupt
        return super().train_step(batch)


Killed.__name__ = "MAMLTrainer"  # the folder of the results


def test_killed_and_continued_equals_not_killed(workspace: Workspace) -> None:
    dropout = {"modality_dropout": 0.5, "checkpoint_attention": True}
    whole = make_trainer(workspace, **dropout)
    whole.run_training()
    expected = weights(whole)
    progress = pd.read_csv(Path(whole.output_folder) / "progress.csv")
    shutil.rmtree(whole.output_folder)

    killed = make_trainer(workspace, Killed, **dropout)
    with pytest.raises(KeyboardInterrupt):
        killed.run_training()
    continued = make_trainer(workspace, **dropout)
    continued.load_checkpoint(str(Path(killed.output_folder) / "checkpoint_latest.pth"))
    assert continued.current_epoch == 1
    continued.run_training()
    for name, value in weights(continued).items():
        assert torch.equal(value, expected[name]), name
    resumed = pd.read_csv(Path(continued.output_folder) / "progress.csv")
    pd.testing.assert_frame_equal(resumed.drop(columns="epoch_seconds"), progress.drop(columns="epoch_seconds"))

    other = make_trainer(workspace, ablation="ma_only")
    with pytest.raises(UsageError, match="was trained with ablation='none'"):
        other.load_checkpoint(str(Path(continued.output_folder) / "checkpoint_final.pth"))


@pytest.mark.parametrize(
    ("settings", "terms", "untrained"),
    [
        ({}, ["joint", "intra_arterial", "intra_venous"], set()),
        ({"ablation": "ma_only"}, ["joint"], {"seg_layers"}),
        ({"lambda_intra": 0, "ma_second_kernel": 1, "optimizer": "adam"}, ["joint"], {"seg_layers"}),
        ({"ablation": "ensemble"}, ["intra_arterial", "intra_venous"], set()),
        ({"modalities": {"late": [1], "early": [0]}}, ["joint", "intra_early", "intra_late"], set()),
    ],
)
def test_terms_and_what_they_train(
    workspace: Workspace, settings: dict[str, Any], terms: list[str], untrained: set[str]
) -> None:
    trainer = make_trainer(workspace, num_epochs=1, num_iterations_per_epoch=2, **settings)
    trainer.initialize()
    started = weights(trainer)
    trainer.run_training()
    assert list(logged(trainer, "loss")) == terms
    assert all(np.isfinite(values).all() for values in logged(trainer, "loss").values())
    gates = logged(trainer, "attention")
    assert set(gates) == (set() if settings.get("ablation") == "ensemble" else set(trainer.modality_names))
    assert all(0 < value < 1 for values in gates.values() for value in values)
    after = weights(trainer)
    parts = {
        "seg_layers": "decoder.seg_layers.1",
        "encoder": "encoder.stages.0",
        "attention": "attention.",
        "head": "head.",
    }
    unchanged = set()
    for part, name in parts.items():
        found = [key for key in started if name in key]
        if found and all(torch.equal(after[key], started[key]) for key in found):
            unchanged.add(part)
    assert unchanged == untrained
    assert type(trainer.optimizer).__name__ == ("Adam" if "optimizer" in settings else "SGD")


@pytest.mark.parametrize("ablation", ["none", "ensemble"])
def test_region_targets(workspace: Workspace, ablation: str) -> None:
    change_dataset(workspace, REGIONS)
    trainer = make_trainer(workspace, ablation=ablation, num_epochs=1, modality_dropout=0.5)
    assert trainer.settings.region_targets is True
    trainer.run_training()
    assert trainer.maml_network.region_targets
    assert np.isfinite(trainer.logger.local_logger.my_fantastic_logging["val_losses"]).all()
    trainer.set_deep_supervision_enabled(False)
    assert list(trainer.network(batch()["data"]).shape) == [2, 2, 16, 32, 32]
    change_dataset(workspace, {"labels": {"background": 0, "box": 1, "core": 2}})
    assert make_trainer(workspace).settings.region_targets is False


# ---- the loss -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"checkpoint_attention": True}, {"ablation": "ensemble"}])
def test_one_backward_pass_gives_the_gradients_of_equation_3(workspace: Workspace, settings: dict[str, Any]) -> None:
    trainer = make_trainer(workspace, **settings)
    trainer.initialize()
    content, losses = batch(), {}
    for name, term in trainer.loss_terms(content):
        term.backward()
        losses[name] = term.item()
    stepwise = {name: p.grad.clone() for name, p in trainer.network.named_parameters() if p.grad is not None}
    trainer.network.zero_grad(set_to_none=True)

    joint, *streams = trainer.network(content["data"])
    loss, targets = trainer.loss.loss, content["target"]  # two levels: nnU-Net gives the last one no weight
    expected = {"joint": loss(joint, targets[0])}
    for i, name in enumerate(("arterial", "venous")):
        expected[f"intra_{name}"] = (1 if "ablation" in settings else 0.5) * loss(streams[2 * i], targets[0])
    if "ablation" in settings:
        expected.pop("joint")
    sum(expected.values()).backward()
    assert losses == pytest.approx({name: value.item() for name, value in expected.items()}, abs=1e-6)
    gradients = {name: p.grad for name, p in trainer.network.named_parameters() if p.grad is not None}
    assert stepwise.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(stepwise[name], gradient, rtol=1e-3, atol=1e-5), name


def test_validation_takes_the_joint_prediction(workspace: Workspace) -> None:
    trainer = make_trainer(workspace)
    trainer.initialize()
    trainer.network.eval()
    content = batch()
    with torch.no_grad():
        result = trainer.validation_step({"data": content["data"], "target": [t.clone() for t in content["target"]]})
        joint = trainer.network(content["data"])[0].argmax(1)
    truth = content["target"][0][:, 0]
    assert result["tp_hard"].tolist() == [int(((joint == k) & (truth == k)).sum()) for k in (1, 2)]


# ---- missing modalities -------------------------------------------------------------------------------------------


def test_subsets_have_the_asked_probabilities() -> None:
    torch.manual_seed(0)
    subsets = draw_subsets([0.5, 0.9, 0.0], 4000)
    share = [np.mean([i in subset for subset in subsets]) for i in range(3)]
    assert share == pytest.approx([0.5, 0.1, 1.0], abs=0.03)
    never_empty = draw_subsets([0.9, 0.9], 4000)
    assert set(never_empty) == {(0,), (1,), (0, 1)}
    assert np.mean([len(subset) == 2 for subset in never_empty]) == pytest.approx(0.01 / 0.19, abs=0.02)
    torch.manual_seed(0)
    assert draw_subsets([0.5, 0.9, 0.0], 4000) == subsets


def test_an_absent_modality_has_no_loss_and_no_gradient(workspace: Workspace) -> None:
    settings = {"modality_probabilities": {"arterial": 0.95}, "num_epochs": 1, "num_iterations_per_epoch": 6}
    trainer = make_trainer(workspace, Watched, **settings)
    trainer.run_training()
    assert ["loss/joint", "loss/intra_venous"] in trainer.seen and len(trainer.seen) == 6
    assert all("loss/intra_venous" in names for names in trainer.seen)

    trainer.network.zero_grad(set_to_none=True)
    trainer.set_deep_supervision_enabled(True)
    trainer._subsets = iter([(1,)])
    trainer._gates.reset()
    content = batch()
    content["data"][:, 0] = float("nan")
    terms = list(trainer.loss_terms(content))
    assert [name for name, _ in terms] == ["joint", "intra_venous"]
    assert trainer.epoch_values() == {}, "nothing was attended"
    terms[0][1].backward()
    without = {name for name, p in trainer.network.named_parameters() if p.grad is None}
    assert {
        name for name, _ in trainer.network.named_parameters() if name.startswith(("streams.0", "attention", "head"))
    } <= without
    assert not [name for name in without if name.startswith("streams.1") and "seg_layers.0" not in name]
    assert [name for name, _ in trainer.loss_terms(batch())] == ["joint", "intra_arterial", "intra_venous"]


def test_gates_are_averaged_over_what_was_attended() -> None:
    monitor = GateMonitor(["a", "b", "c"])
    assert monitor.means() == {}
    monitor.update(torch.tensor([0.2, 0.6]).reshape(1, 2, 1, 1).expand(2, 2, 4, 4), (0, 2))
    monitor.update(torch.tensor([0.4, 0.8]).reshape(1, 2, 1, 1).expand(2, 2, 4, 4), (0, 1))
    assert monitor.means() == pytest.approx({"a": 0.3, "b": 0.8, "c": 0.6})
    monitor.reset()
    assert monitor.means() == {}


@pytest.mark.parametrize(
    ("names", "settings", "said"),
    [
        ("abc", {}, True),
        ("ab", {}, False),
        ("abc", {"modality_dropout": 0.3}, False),
        ("abc", {"ablation": "ensemble"}, False),
    ],
)
def test_a_run_that_prepares_for_no_pair_of_three_says_so(
    workspace: Workspace, names: str, settings: dict[str, Any], said: bool
) -> None:
    trainer = make_trainer(workspace, **settings)
    trainer.modality_names = tuple(names)
    trainer.tell_what_is_not_prepared()
    log = Path(trainer.log_file).read_text() if Path(trainer.log_file).is_file() else ""
    assert ("set modality_dropout" in log) is said


def test_a_compiled_network_has_room_for_every_subset(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    make_trainer(workspace).initialize()
    assert torch._dynamo.config.recompile_limit == 1
    make_trainer(workspace, modality_dropout=0.1).initialize()
    assert torch._dynamo.config.recompile_limit >= 3


@pytest.mark.slow
def test_two_ranks_drop_the_same_modalities(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    import maml_ranks

    mp.spawn(maml_ranks.train_on_rank, (str(workspace.preprocessed), PLANS, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert first["seen"] == second["seen"] and len({tuple(names) for names in first["seen"]}) > 1
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name]), name


# ---- what a user can get wrong, and the commands around it --------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modalities": {"both": [0, 1]}}, "needs at least two modalities"),
        ({"modalities": {"a": [0], "b": [2]}}, "has channel 2 which the data set does not have"),
        ({"modality_probabilities": {"portal": 0.5}}, "'portal', which is none of the modalities arterial, venous"),
    ],
)
def test_settings_that_do_not_fit_the_data(workspace: Workspace, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_trainer(workspace, **settings)


def test_one_channel(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    change_dataset(workspace, {"channel_names": {"0": "CT"}})
    assert main(["check", "994", "-tr", "MAMLTrainer", "-p", PLANS]) == 1
    assert "MAMLTrainer needs at least two modalities" in capsys.readouterr().err


def test_configurations_that_are_not_there(workspace: Workspace) -> None:
    plans = load_json(workspace.preprocessed / f"{PLANS}.json")
    dataset_json = load_json(workspace.preprocessed / "dataset.json")
    with pytest.raises(UsageError, match="-c 3d_lowres is not in the plans"):
        MAMLTrainer(plans, "3d_lowres", 0, dataset_json, torch.device("cpu"))
    cascade = {**plans["configurations"]["3d_fullres"], "previous_stage": "3d_fullres"}
    plans["configurations"]["3d_cascade_fullres"] = cascade
    with pytest.raises(UsageError, match="cannot train configuration 3d_cascade_fullres"):
        MAMLTrainer(plans, "3d_cascade_fullres", 0, dataset_json, torch.device("cpu"))


def test_check_plan_and_inspect(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "994", "-tr", "MAMLTrainer", "-p", PLANS]) == 0
    assert "can start" in capsys.readouterr().out
    setting = 'modalities={"late": [1], "early": [0]}'
    assert main(["plan", "-d", "994", "-tr", "MAMLTrainer", "-p", PLANS, "--set", setting, "--name", "named"]) == 0
    assert main(["inspect", "-tr", "MAMLTrainer", "-d", "994", "-p", f"{PLANS}_named"]) == 0
    printed = capsys.readouterr().out
    assert "attention.gates" in printed and "x 1x2x16x32x32" in printed


def test_paper_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "-tr", "MAMLTrainer", "--paper", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parameters"] == 62_612_726
    assert report["forward"]["target"]["gflop"] == pytest.approx(8 * 354.6, rel=1e-3)
    assert len(report["forward"]["target"]["output"]) == 11
