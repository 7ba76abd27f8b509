"""TMCTrainer from end to end: 2D images with a sentence each, resume, prediction with and without sentences."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from toy import FOLDERS, Workspace, command, weights, write_toy_ct

from nnunet_ext.cli.main import main
from nnunet_ext.trainers.tmc import TMCTrainer
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json, save_json

PLANS = "nnUNetPlans_tmc"
TINY = ("num_epochs=2", "num_iterations_per_epoch=3", "num_val_iterations_per_epoch=1", "save_every=1", "seed=1")
NETWORK = (
    *("swin_width=8", "swin_depths=[1,1,1,1]", "swin_heads=[1,1,2,2]", "swin_window=4", "cnn_width=8", "align_width=8"),
    *("bert_width=16", "bert_heads=2", "bert_intermediate=32", "bert_split=[1,1,1,1]"),
)
SENTENCES = {f"toy_{case:03d}": f"A box on the {('left', 'right')[case % 2]}." for case in range(4)}  # toy_004 has none


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Toy slices with sentences, preprocessed, with plans for TMCTrainer."""
    workspace = Workspace(tmp_path_factory.mktemp("tmc") / "nnunet", target="Dataset992_Described")
    environment = {name: str(workspace.root / name) for name in FOLDERS}
    for folder in environment.values():
        Path(folder).mkdir(parents=True)
    environment |= {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1", "OMP_NUM_THREADS": "1"}
    write_toy_ct(workspace.raw, flat=True)
    command("nnUNetv2_plan_and_preprocess", "-d", 992, "-c", "2d", "-np", 1, "-npfp", 1, **environment)
    file = workspace.root / "texts.json"
    file.write_text(json.dumps(SENTENCES))
    command("nnunet_ext", "link", 992, "--prompts", file, "--quiet", **environment)
    shape = ("--patch-size", 36, 32, "--batch-size", 2)
    plan = ("plan", "-d", 992, "-c", "2d", "--quiet", "-tr", "TMCTrainer", "--name", "tmc", *shape, "--set")
    command("nnunet_ext", *plan, *TINY, *NETWORK, **environment)
    return workspace


@pytest.fixture
def workspace(described: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of the folders as the current nnU-Net folders."""
    return described.copied(tmp_path / "nnunet", monkeypatch)


def make_trainer(workspace: Workspace, **settings: Any) -> TMCTrainer:
    made: TMCTrainer = workspace.trainer(TMCTrainer, PLANS, configuration="2d", **settings)
    return made


def predicted(folder: Path) -> dict[str, Any]:
    return {file.name: sitk.GetArrayFromImage(sitk.ReadImage(file)) for file in sorted(folder.glob("*.nii.gz"))}


def test_train_validate_and_predict_with_and_without_sentences(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make_trainer(workspace, num_epochs=1)
    seen: list[Any] = []
    select = trainer._select
    monkeypatch.setattr(trainer, "_select", lambda cases: (seen.append(list(cases)), select(cases)))
    trainer.run_training()
    log = trainer.logger.local_logger.my_fantastic_logging
    assert set(log["loss/segmentation"] + log["loss/alignment"]) and np.isfinite(log["loss/alignment"]).all()
    assert {"temperature/1", "temperature/4"} <= set(log)
    seen.clear()
    trainer.perform_actual_validation()
    assert seen == [[case] for case in trainer.do_split()[1]], "each case is predicted with its own sentence"
    assert trainer.tmc_network.prompts is None

    shutil.rmtree(workspace.root / "nnUNet_preprocessed")  # a machine that has only the model
    images, raw = tmp_path / "in", workspace.raw
    images.mkdir()
    for case in ("toy_000", "toy_001"):
        shutil.copy(raw / "imagesTr" / f"{case}_0000.nii.gz", images)
    texts = tmp_path / "texts.csv"
    texts.write_text("Image,Description\ntoy_000.png,A zebra on the left.\n")
    flags = ("-m", str(Path(trainer.output_folder_base)), "-f", "0", "-device", "cpu", "-npp", "0", "-nps", "0")
    arguments = ("predict", "-i", str(images), *flags)
    capsys.readouterr()
    assert main([*arguments, "-o", str(tmp_path / "with"), "--prompts", str(texts)]) == 0
    told = capsys.readouterr().out
    assert "1 cases with a sentence; 1 without, which get the default prompt: toy_001" in told
    assert "words that the model does not know: zebra" in told
    assert main([*arguments, "-o", str(tmp_path / "without")]) == 0
    assert main([*arguments, "-o", str(tmp_path / "one"), "--prompt", "A box on the right."]) == 0
    for folder in ("with", "without", "one"):
        assert len(predicted(tmp_path / folder)) == 2


def test_killed_and_continued_equals_not_killed(workspace: Workspace) -> None:
    whole = make_trainer(workspace)
    whole.run_training()
    expected = weights(whole)
    shutil.rmtree(whole.output_folder)

    first = make_trainer(workspace)
    first.on_train_start()
    try:
        for epoch in range(1):
            first.on_epoch_start()
            first.on_train_epoch_start()
            outputs = [first.train_step(next(first.dataloader_train)) for _ in range(3)]
            first.on_train_epoch_end(outputs)
            with torch.no_grad():
                first.on_validation_epoch_start()
                first.on_validation_epoch_end([first.validation_step(next(first.dataloader_val))])
            first.on_epoch_end()
            assert epoch == 0
    finally:
        first.shut_down()
    continued = make_trainer(workspace)
    continued.initialize()
    continued.load_checkpoint(str(Path(first.output_folder) / "checkpoint_latest.pth"))
    continued.run_training()
    for name, value in weights(continued).items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("settings", "terms"),
    [
        ({}, ["segmentation", "alignment"]),
        ({"align_mode": "siglip"}, ["segmentation", "alignment"]),
        ({"align_mode": "literal"}, ["segmentation", "alignment"]),
        ({"align_mode": "none"}, ["segmentation"]),
        ({"no_text": True}, ["segmentation"]),
        ({"no_cross_attention": True}, ["segmentation", "alignment"]),
    ],
)
def test_every_ablation_gives_every_parameter_a_gradient(
    workspace: Workspace, settings: dict[str, Any], terms: list[str]
) -> None:
    trainer = make_trainer(workspace, **settings)
    trainer.initialize()
    batch = {
        "data": torch.randn(2, 1, 36, 32),
        "target": torch.randint(2, (2, 1, 36, 32)),
        "keys": ["toy_000", "toy_004"],
    }
    found = []
    for name, loss in trainer.loss_terms(batch):
        found.append(name)
        loss.backward()
    assert found == terms
    without = [name for name, p in trainer.network.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_learning_rates_of_the_groups_keep_their_ratio(workspace: Workspace) -> None:
    trainer = make_trainer(workspace)
    trainer.initialize()
    group = trainer.optimizer.param_groups[0]
    trainer.optimizer.param_groups.append({**group, "params": [], "share": 0.1})
    for epoch in (0, 1):
        trainer.lr_scheduler.step(epoch)
        new, pretrained = trainer.optimizer.param_groups[0]["lr"], trainer.optimizer.param_groups[-1]["lr"]
        assert new == pytest.approx(3e-4 * (1 - epoch / 2) ** 0.9) and pretrained == pytest.approx(0.1 * new)
    temperature = [
        g for g in trainer.optimizer.param_groups if any(p is trainer.tmc_network.alignment_scale for p in g["params"])
    ]
    assert temperature[0]["weight_decay"] == 0


def test_no_mirroring_at_prediction_and_small_rotations(workspace: Workspace) -> None:
    trainer = make_trainer(workspace, flip_words=True, mirror_axes=[1])
    rotation, _, size, mirrored = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert rotation == pytest.approx((-0.2618, 0.2618), abs=1e-4) and mirrored is None
    assert trainer.inference_allowed_mirroring_axes is None and trainer._mirrored == (1,)
    assert all(a >= b for a, b in zip(size, (36, 32), strict=True))
    without = make_trainer(workspace, no_text=True, mirror_axes=[1])
    again = without.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert again[0] == rotation and list(again[2]) == list(size) and again[3] == (1,)
    assert without.inference_allowed_mirroring_axes == (1,)


# ---- errors -------------------------------------------------------------------------------------------------------


def test_without_sentences_the_way_to_link_them_is_named(workspace: Workspace) -> None:
    for folder in (workspace.raw, workspace.preprocessed):
        content = load_json(folder / "dataset.json")
        content.pop("nnunet_ext")
        save_json(content, folder / "dataset.json")
    with pytest.raises(UsageError, match="has no prompts; run: nnunet_ext link 992 --prompts FILE"):
        make_trainer(workspace)
    assert make_trainer(workspace, no_text=True).settings.vocabulary is None


def test_inspected_checked_and_planned_without_data(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    model = ("-tr", "TMCTrainer", "-c", "2d", "-p", PLANS)
    assert main(["inspect", "-d", "992", *model]) == 0
    assert "tokens 1x32" in capsys.readouterr().out
    assert main(["check", "992", *model]) == 0
    assert "can start" in capsys.readouterr().out
    small = ("plan", "-d", "992", "-c", "2d", "-tr", "TMCTrainer", "--name", "small", "--gpu-memory", "2")
    assert main([*small, "--set", *NETWORK]) == 0
    assert load_json(workspace.preprocessed / "nnUNetPlans_small.json")["configurations"]["2d"]["batch_size"] >= 2


def test_the_run_knows_its_sentences(workspace: Workspace) -> None:
    before = make_trainer(workspace)
    before.initialize()
    assert before.sentences is not None and before.settings.prompts_sha256 == before.sentences.prompts.sha256
    for folder in (workspace.raw, workspace.preprocessed):
        save_json({**SENTENCES, "toy_004": "A box on the left."}, folder / "prompts.json")
    changed = make_trainer(workspace).settings
    assert changed.prompts_sha256 != before.settings.prompts_sha256
    assert changed.vocabulary == before.settings.vocabulary


def test_other_dimensions_and_cases_are_refused(workspace: Workspace) -> None:
    plans = load_json(workspace.preprocessed / f"{PLANS}.json")
    plans["configurations"]["3d_fullres"] = {**plans["configurations"]["2d"], "patch_size": [8, 32, 32]}
    dataset_json = load_json(workspace.preprocessed / "dataset.json")
    with pytest.raises(UsageError, match=r"TMCTrainer segments 2D images; patches of -c 3d_fullres are \[8, 32, 32\]"):
        TMCTrainer(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))
    for folder in (workspace.raw, workspace.preprocessed):
        save_json({**SENTENCES, "toy_777": "A box."}, folder / "prompts.json")
    with pytest.raises(UsageError, match="1 of 5 names are none of the 5 cases: toy_777"):
        make_trainer(workspace).initialize()
