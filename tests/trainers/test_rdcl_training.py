"""RDCLTrainer from end to end: linked data, the host's command line, resume, ablations, gradient routing."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from toy import FOLDERS, REPOSITORY, Workspace, command, weights, write_toy_ct

from nnunet_ext.architectures.rdcl import RelationFeatures
from nnunet_ext.cli.main import main
from nnunet_ext.settings.rdcl import RDCLSettings
from nnunet_ext.trainers.rdcl import RDCLTrainer
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json, save_json
from nnunet_ext.utilities.relation_record import read_relations

PLANS = "nnUNetPlans_rdcl"
TINY = ("num_epochs=2", "num_iterations_per_epoch=2", "num_val_iterations_per_epoch=1", "save_every=1", "seed=1")


@pytest.fixture(scope="module")
def linked_workspace(prepared_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The toy target with plans for RDCLTrainer, linked to toy non-target (996) and unlabelled (995) cases."""
    workspace = Workspace(tmp_path_factory.mktemp("rdcl") / "nnunet")
    shutil.copytree(prepared_workspace.root, workspace.root)
    environment = {name: str(workspace.root / name) for name in FOLDERS} | {"OMP_NUM_THREADS": "1"}
    raw = workspace.root / "nnUNet_raw"
    write_toy_ct(raw / "Dataset996_Other", 2, name="other")
    write_toy_ct(raw / "Dataset995_Unlabelled", 2, name="unlabelled", labelled=False)
    shape = ("--patch-size", 16, 32, 32, "--batch-size", 2, "--features", 4, 8, 8)
    plan = ("plan", "-d", 998, "--quiet", "-tr", "RDCLTrainer", "--name", "rdcl", *shape, "--set", *TINY)
    command("nnunet_ext", *plan, **environment)
    link = ("link", 998, "--non-target", 996, "--unlabeled", 995, "-c", "3d_fullres", "-np", 1, "--quiet")
    command("nnunet_ext", *link, **environment)
    return workspace


@pytest.fixture
def workspace(linked_workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of the linked folders as the current nnU-Net folders."""
    return linked_workspace.copied(tmp_path / "nnunet", monkeypatch)


def make_trainer(workspace: Workspace, trainer: type[RDCLTrainer] = RDCLTrainer, **settings: Any) -> RDCLTrainer:
    made: RDCLTrainer = workspace.trainer(trainer, PLANS, **settings)
    return made


def unlink(workspace: Workspace, kind: str) -> None:
    for folder in (workspace.preprocessed, workspace.raw):
        dataset_json = load_json(folder / "dataset.json")
        dataset_json["nnunet_ext"].pop(kind)
        save_json(dataset_json, folder / "dataset.json")


def nnunet_checkpoint(workspace: Workspace, path: Path, seed: int = 3) -> dict[str, torch.Tensor]:
    """A checkpoint as plain nnU-Net writes it, of the network of our plans; returns its weights."""
    torch.manual_seed(seed)
    config = PlansManager(load_json(workspace.preprocessed / f"{PLANS}.json")).get_configuration("3d_fullres")
    network = get_network_from_plans(
        config.network_arch_class_name,
        config.network_arch_init_kwargs,
        config.network_arch_init_kwargs_req_import,
        1,
        3,
    )
    content: dict[str, torch.Tensor] = network.state_dict()
    logging = {"train_losses": [np.float32(0.5)], "mean_fg_dice": [np.float64(0.1)]}
    torch.save({"network_weights": content, "logging": logging, "trainer_name": "nnUNetTrainer"}, path)
    return content


@pytest.mark.slow
def test_train_then_predict_without_linked_data_by_the_hosts_commands(workspace: Workspace) -> None:
    arguments = ("998", "3d_fullres", "0", "-tr", "RDCLTrainer", "-p", PLANS, "-device", "cpu")
    command("nnUNetv2_train", *arguments)
    model = workspace.root / "nnUNet_results" / workspace.target / f"RDCLTrainer__{PLANS}__3d_fullres"
    fold = model / "fold_0"
    progress = pd.read_csv(fold / "progress.csv")
    terms = ["loss/segmentation", "loss/general", "loss/target"]
    assert np.isfinite(progress[terms]).all(axis=None)
    assert np.allclose(progress.train_losses, progress[terms].sum(axis=1), atol=1e-4)
    assert (progress["loss/general"] > 0).all() and (progress["loss/target"] < 0).all()
    assert progress["relation/general_rank"].between(0, 1).all()
    assert (progress[["relation/general", "relation/target"]] > 0).all(axis=None)
    assert progress["relation/weight"].is_monotonic_increasing
    assert progress["relation/weight"].iloc[-1] == pytest.approx(0.1), "the ramp ends with the training"
    assert "WARNING: general_weights is not set" in next(fold.glob("training_log*")).read_text()
    pictures = load_json(fold / "pictures" / "pictures.json")
    assert [picture["title"] for picture in pictures] == ["Feature relations", "Relations over epochs"]
    assert "mean |R_G(non-target) - R_G(target)| is 0." in pictures[0]["alt"]
    assert all((fold / "pictures" / picture["file"]).stat().st_size > 5000 for picture in pictures)
    command("nnunet_ext", "explain", "relation", "-d", "998", "-c", "3d_fullres", "-p", PLANS)
    assert len(list((fold / "explain").iterdir())) == 3

    for name in ("Dataset996_Other", "Dataset995_Unlabelled"):
        for folder in FOLDERS[:2]:
            shutil.rmtree(workspace.root / folder / name)
    images, output = workspace.raw / "imagesTs", workspace.root / "predicted"
    command("nnUNetv2_predict", "-i", images, "-o", output, "-d", "998", "-c", "3d_fullres", *arguments[3:], "-f", "0")
    assert sitk.ReadImage(output / "toy_005.nii.gz").GetSize() == (32, 36, 16)


class Killed(RDCLTrainer):
    """Dies in the middle of the second epoch."""

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.current_epoch == 1 and self._iteration == 1:
            raise KeyboardInterrupt
        return super().train_step(batch)


Killed.__name__ = "RDCLTrainer"  # the folder of the results


def test_killed_and_continued_equals_not_killed(workspace: Workspace) -> None:
    whole = make_trainer(workspace, num_epochs=2)
    at_checkpoints, save = [], whole.save_checkpoint
    path = Path(whole.output_folder) / "relations.npz"
    whole.save_checkpoint = lambda name: (at_checkpoints.append([*read_relations(path)]), save(name))  # type: ignore[method-assign]
    whole.run_training()
    assert at_checkpoints[0] == [0], "a kill right after the first checkpoint loses nothing"
    expected = weights(whole)
    progress = pd.read_csv(Path(whole.output_folder) / "progress.csv")
    relations = read_relations(path)
    assert list(relations) == [0, 1]
    shutil.rmtree(whole.output_folder)

    killed = make_trainer(workspace, Killed, num_epochs=2)
    with pytest.raises(KeyboardInterrupt):
        killed.run_training()
    assert all(stream._iterator is None for stream in killed.streams.values()), "closed after an error"
    continued = make_trainer(workspace, num_epochs=2)
    continued.load_checkpoint(str(Path(killed.output_folder) / "checkpoint_latest.pth"))
    assert continued.current_epoch == 1
    continued.run_training()

    for name, value in weights(continued).items():
        assert torch.equal(value, expected[name]), name
    resumed = pd.read_csv(Path(continued.output_folder) / "progress.csv")
    pd.testing.assert_frame_equal(resumed.drop(columns="epoch_seconds"), progress.drop(columns="epoch_seconds"))
    np.testing.assert_equal(read_relations(path), relations)


@pytest.mark.slow
def test_sigkill_in_an_epoch_and_c_give_the_losses_of_an_uninterrupted_run(workspace: Workspace) -> None:
    plans = load_json(workspace.preprocessed / f"{PLANS}.json")
    plans["nnunet_ext"]["RDCLTrainer"].update(num_epochs=4, num_iterations_per_epoch=10)
    save_json(plans, workspace.preprocessed / f"{PLANS}.json")
    arguments = ("998", "3d_fullres", "0", "-tr", "RDCLTrainer", "-p", PLANS, "-device", "cpu")
    command("nnUNetv2_train", *arguments)
    fold = workspace.root / "nnUNet_results" / workspace.target / f"RDCLTrainer__{PLANS}__3d_fullres" / "fold_0"
    whole = pd.read_csv(fold / "progress.csv").drop(columns="epoch_seconds")
    shutil.rmtree(fold)

    program = [str(Path(sys.executable).parent / "nnUNetv2_train"), *arguments]
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with subprocess.Popen(program, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL) as training:
        while not (fold / "progress.csv").is_file() or len(pd.read_csv(fold / "progress.csv")) < 2:
            assert training.poll() is None
            time.sleep(0.05)
        time.sleep(0.3)  # some way into the third epoch
        training.kill()
    assert len(pd.read_csv(fold / "progress.csv")) < 4 and not (fold / "checkpoint_final.pth").exists()

    command("nnUNetv2_train", *arguments, "--c")
    continued = pd.read_csv(fold / "progress.csv").drop(columns="epoch_seconds")
    pd.testing.assert_frame_equal(continued, whole, check_exact=True)


@pytest.mark.parametrize(
    ("settings", "terms", "unchanged"),
    [
        ({}, ["segmentation", "general", "target"], set()),
        ({"ablation": "general_only"}, ["segmentation", "general"], set()),
        ({"ablation": "target_only"}, ["segmentation", "target"], {"general_encoder"}),
        ({"ablation": "baseline"}, ["segmentation"], {"general_encoder"}),
        ({"joint_general": True}, ["segmentation", "general", "target"], set()),
    ],
)
def test_terms_and_frozen_parts_of_every_ablation(
    workspace: Workspace, settings: dict[str, Any], terms: list[str], unchanged: set[str]
) -> None:
    trainer = make_trainer(workspace, num_epochs=1, num_iterations_per_epoch=2, **settings)
    started: dict[str, torch.Tensor] = {}
    load = trainer.on_train_start
    trainer.on_train_start = lambda: (load(), started.update(weights(trainer)))  # type: ignore[method-assign]
    trainer.run_training()
    kept = read_relations(Path(trainer.output_folder) / "relations.npz")
    assert list(kept) == ([0] if len(terms) > 1 else [])
    assert all(("general_non_target" in matrices) == ("general" in terms) for matrices in kept.values())
    logging = trainer.logger.local_logger.my_fantastic_logging
    assert [key.split("/")[1] for key in logging if key.startswith("loss/")] == terms
    assert set(trainer.streams) == ({"non_target", "unlabeled"} - ({"non_target"} if unchanged else set())) - (
        {"unlabeled"} if terms == ["segmentation"] else set()
    )
    after = weights(trainer)
    frozen = {
        part
        for part in ("encoder", "general_encoder", "decoder")
        if all(torch.equal(after[name], value) for name, value in started.items() if name.startswith(f"{part}."))
    }
    assert frozen == unchanged


def features(seed: int, requires_grad: bool = True) -> torch.Tensor:
    made = torch.randn(2, 8, 2, 3, generator=torch.Generator().manual_seed(seed))
    return made.requires_grad_(requires_grad)


def test_each_relation_loss_reaches_its_own_encoder(workspace: Workspace) -> None:
    trainer = make_trainer(workspace)
    inputs = RelationFeatures(features(0), features(1), features(2))
    trainer.relation_terms(inputs)["general"].backward()
    assert inputs.target.grad is None
    for reached in (inputs.general_non_target, inputs.general_target):
        assert reached is not None and reached.grad is not None and reached.grad.abs().sum() > 0
    inputs = RelationFeatures(features(0), features(1), features(2))
    trainer.relation_terms(inputs)["target"].backward()
    assert inputs.general_non_target is not None
    assert inputs.general_non_target.grad is None and inputs.general_target.grad is None
    assert inputs.target.grad is not None and inputs.target.grad.abs().sum() > 0


def test_segmentation_carries_the_gradient_of_the_target_relation(workspace: Workspace) -> None:
    """The sum of what is back-propagated one after the other is the gradient of the joint loss."""
    trainer = make_trainer(workspace, unlabeled_batch_size=0, relation_weight=50)
    trainer.initialize()
    generator = torch.Generator().manual_seed(0)
    images, other = (torch.randn(2, 1, 16, 32, 32, generator=generator) for _ in range(2))
    trainer.streams = {"non_target": iter([other])}  # type: ignore[dict-item]
    labels = [torch.zeros(2, 1, *size) for size in ((16, 32, 32), (16, 16, 16))]
    losses = {}
    for name, term in trainer.loss_terms({"data": images, "target": labels}):
        term.backward()
        losses[name] = float(term.detach())
    stepwise = [p.grad.clone() for p in trainer.network.parameters() if p.grad is not None]
    trainer.network.zero_grad(set_to_none=True)

    trainer._iteration = 0
    logits, found = trainer.network(images, non_target=other)
    terms, segmentation = trainer.relation_terms(found), trainer.loss(logits, labels)
    (segmentation + terms["general"] + terms["target"]).backward()
    joint = [p.grad for p in trainer.network.parameters() if p.grad is not None]
    assert losses["segmentation"] == segmentation.item() and losses["target"] == terms["target"].item()
    for a, b in zip(stepwise, joint, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def test_the_general_encoder_has_its_own_group_and_clip(workspace: Workspace) -> None:
    trainer = make_trainer(workspace, gradient_clip=1.0)
    trainer.initialize()
    others, general = trainer.optimizer.param_groups
    assert (others["weight_decay"], general["weight_decay"]) == (3e-5, 0.0)
    assert {id(p) for p in general["params"]} == {id(p) for p in trainer.network.general_encoder.parameters()}
    for parameter in trainer.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    others["params"][0].grad.view(-1)[0] = 1000
    general["params"][0].grad.view(-1)[0] = 0.5
    trainer.clip_gradients()
    assert others["params"][0].grad.norm() == pytest.approx(1, abs=1e-3)
    assert general["params"][0].grad.norm() == 0.5, "a large segmentation gradient does not scale it down"


def test_ramp_follows_epoch_and_iteration(workspace: Workspace) -> None:
    trainer = make_trainer(workspace, num_epochs=4, num_iterations_per_epoch=5, ramp="exp")
    trainer.current_epoch, trainer._iteration = 1, 2
    assert trainer.relation_weight() == pytest.approx(0.1 * np.exp(-5 * (1 - 7 / 20)))


def test_general_weights_start_both_encoders(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_final.pth"
    expected = nnunet_checkpoint(workspace, path)
    trainer = make_trainer(workspace, general_weights=str(path), init_target_from_general=True)
    trainer.on_train_start()
    trainer.shut_down()
    own, name = weights(trainer), "stages.2.0.convs.1.conv.weight"
    for part in ("encoder", "general_encoder"):
        assert torch.equal(own[f"{part}.{name}"], expected[f"encoder.{name}"]), part
    log = Path(trainer.log_file).read_text()
    assert "general encoder:" in log and "decoder.seg_layers.0.weight" in log and "random start: none" in log
    assert "decoder.encoder." not in log and "WARNING" not in log


def test_a_resumed_run_keeps_what_it_learned(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_final.pth"
    nnunet_checkpoint(workspace, path)
    trainer = make_trainer(workspace, num_epochs=1, relation_weight=100, general_weights=str(path))
    trainer.run_training()
    again = make_trainer(workspace, num_epochs=1, relation_weight=100, general_weights=str(path))
    again.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    again.on_train_start()
    again.shut_down()
    for name, value in weights(trainer).items():
        assert torch.equal(value, weights(again)[name]), name
    other = make_trainer(workspace, ablation="baseline")
    with pytest.raises(UsageError, match="was trained with ablation='none'"):
        other.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))


# ---- what a user can get wrong ------------------------------------------------------------------------------------


def test_missing_relation_names_the_command(workspace: Workspace) -> None:
    unlink(workspace, "unlabeled")
    assert make_trainer(workspace).settings.trains_general, "unlabelled images are not needed"
    with pytest.raises(UsageError, match="nnunet_ext link 998 --unlabeled"):
        make_trainer(workspace, unlabeled_batch_size=2)
    unlink(workspace, "non_target")
    with pytest.raises(UsageError, match="nnunet_ext link 998 --non-target"):
        make_trainer(workspace)
    assert make_trainer(workspace, ablation="baseline").settings.ablation == "baseline"


def test_unprepared_relation_names_the_command(workspace: Workspace) -> None:
    shutil.rmtree(workspace.root / "nnUNet_preprocessed" / "Dataset996_Other")
    with pytest.raises(UsageError, match="nnunet_ext link 998 --non-target 996"):
        make_trainer(workspace)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reduction": "max"}, "reduction='max' is not one of sum_per_row, sum, mean"),
        ({"joint_general": True, "ablation": "baseline"}, "joint_general=True trains the general encoder, but"),
        ({"init_target_from_general": True}, "init_target_from_general=True needs general_weights"),
        ({"general_weights": "absent.pth"}, "general_weights='absent.pth' is not a file"),
    ],
)
def test_settings_that_cannot_be(workspace: Workspace, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_trainer(workspace, **settings)


def test_unusable_general_weights_are_named(workspace: Workspace, tmp_path: Path) -> None:
    torch.save({"network_weights": {"encoder.other": torch.zeros(3)}}, tmp_path / "other.pth")
    torch.save({"network_weights": Path("object")}, tmp_path / "code.pth")
    torch.save({"network_weights": [1]}, tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("no checkpoint")
    for name, reason in (
        ("other.pth", "no weight that fits"),
        ("code.pth", "could run code; give the checkpoint_final.pth"),
        ("list.pth", "no network_weights"),
        ("text.pth", "cannot be read"),
    ):
        trainer = make_trainer(workspace, general_weights=str(tmp_path / name))
        with pytest.raises(UsageError, match=f"general_weights='.*{name}'.*({reason})"):
            trainer.run_training()


def test_paper_reading() -> None:
    assert RDCLSettings.literal() == {"reduction": "sum", "ramp": "exp", "general_weight_decay": 3e-5}


def test_configurations_that_are_not_there(workspace: Workspace) -> None:
    plans = load_json(workspace.preprocessed / f"{PLANS}.json")
    dataset_json = load_json(workspace.preprocessed / "dataset.json")
    with pytest.raises(UsageError, match="-c 3d_lowres is not in the plans"):
        RDCLTrainer(plans, "3d_lowres", 0, dataset_json, torch.device("cpu"))
    cascade = {**plans["configurations"]["3d_fullres"], "previous_stage": "3d_fullres"}
    plans["configurations"]["3d_cascade_fullres"] = cascade
    with pytest.raises(UsageError, match="cannot train configuration 3d_cascade_fullres"):
        RDCLTrainer(plans, "3d_cascade_fullres", 0, dataset_json, torch.device("cpu"))


# ---- the commands around it ---------------------------------------------------------------------------------------


def test_check_and_inspect(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "998", "-tr", "RDCLTrainer", "-p", PLANS]) == 0
    assert "can start" in capsys.readouterr().out
    assert main(["inspect", "-tr", "RDCLTrainer", "-d", "998", "-p", PLANS]) == 0
    printed = capsys.readouterr().out
    assert "general_encoder.stages" in printed and "non_target 1x1x16x32x32" in printed


@pytest.mark.parametrize(("paper", "count"), [("3d", "45,119,210"), ("2d", "43,545,324")])
def test_paper_networks(capsys: pytest.CaptureFixture[str], paper: str, count: str) -> None:
    assert main(["inspect", "-tr", "RDCLTrainer", "--paper", paper]) == 0
    assert f"RDCLTrainer: {count} parameters" in capsys.readouterr().out


@pytest.mark.slow
def test_2d_from_link_to_prediction(workspace: Workspace) -> None:
    command("nnUNetv2_preprocess", "-d", 998, "-plans_name", "nnUNetPlans", "-c", "2d", "-np", 1)
    shape = ("-c", "2d", "--patch-size", 32, 32, "--batch-size", 2, "--features", 4, 8, 8)
    command("nnunet_ext", "plan", "-d", 998, "-tr", "RDCLTrainer", "--name", "flat", *shape, "--set", *TINY)
    link = ("link", 998, "--non-target", 996, "--unlabeled", 995, "-c", "2d", "-p", "nnUNetPlans_flat", "-np", 1)
    command("nnunet_ext", *link)
    arguments = ("998", "2d", "0", "-tr", "RDCLTrainer", "-p", "nnUNetPlans_flat", "-device", "cpu")
    command("nnUNetv2_train", *arguments)
    output = workspace.root / "predicted"
    images = workspace.raw / "imagesTs"
    command("nnUNetv2_predict", "-i", images, "-o", output, "-d", "998", "-c", "2d", *arguments[3:], "-f", "0")
    assert sitk.ReadImage(output / "toy_005.nii.gz").GetSize() == (32, 36, 16)
