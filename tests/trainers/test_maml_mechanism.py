"""What MAML is for: phantoms with two contrasts to learn from, and one of them alone to predict from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from phantom_rdcl import without_augmentation
from scipy.ndimage import gaussian_filter
from toy import FOLDERS, SHIM, Workspace, command

from nnunet_ext.trainers.baseline import BaselineTrainer
from nnunet_ext.trainers.maml import MAMLTrainer
from nnunet_ext.utilities.files import load_json, save_json

SHAPE, NUM_CASES, NUM_TRAINING = (16, 32, 32), 14, 8
DATASETS = {"both": (0, 1), "first": (0,), "second": (1,)}
LENGTH = {"num_epochs": 16, "num_iterations_per_epoch": 25, "num_val_iterations_per_epoch": 1}


def contrasts(case: int) -> tuple[list[Any], Any]:
    """An ellipsoid that is bright in one contrast and dark in the other, over anatomy that both show alike and noise of
    their own; and where it is."""
    generator = np.random.default_rng(case)
    position = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    centre, radius = generator.uniform((6, 9, 9), (10, 23, 23)), generator.uniform((3, 5, 5), (5, 8, 8))
    lesion = (((position - centre) / radius) ** 2).sum(-1) < 1
    anatomy = gaussian_filter(generator.normal(size=SHAPE), 2)
    anatomy *= 50 / anatomy.std()
    return [100 + sign * 80 * lesion + anatomy + generator.normal(0, 20, SHAPE) for sign in (1, -1)], lesion


def write_phantoms(folder: Path, channels: tuple[int, ...]) -> None:
    for sub in ("imagesTr", "labelsTr"):
        (folder / sub).mkdir(parents=True)
    for case in range(NUM_CASES):
        shown, lesion = contrasts(case)
        for place, channel in enumerate(channels):
            image = sitk.GetImageFromArray(shown[channel].astype(np.float32))
            sitk.WriteImage(image, folder / "imagesTr" / f"case_{case:02d}_{place:04d}.nii.gz")
        sitk.WriteImage(
            sitk.GetImageFromArray(lesion.astype(np.uint8)), folder / "labelsTr" / f"case_{case:02d}.nii.gz"
        )
    names = {str(place): ("bright", "dark")[channel] for place, channel in enumerate(channels)}
    labels = {"background": 0, "lesion": 1}
    description = {"channel_names": names, "labels": labels, "numTraining": NUM_CASES, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description))


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workspace]:
    """Both contrasts, and each alone, preprocessed; the first cases are there to learn from."""
    root = tmp_path_factory.mktemp("mechanism") / "nnunet"
    with pytest.MonkeyPatch.context() as patch:
        for name in FOLDERS:
            (root / name).mkdir(parents=True)
            patch.setenv(name, str(root / name))
        cases = [f"case_{case:02d}" for case in range(NUM_CASES)]
        workspaces = {}
        for number, (name, channels) in enumerate(DATASETS.items(), 980):
            workspace = workspaces[name] = Workspace(root, target=f"Dataset{number}_{name}")
            write_phantoms(workspace.raw, channels)
            low = {"nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1"}
            command("nnUNetv2_plan_and_preprocess", "-d", number, "-c", "3d_fullres", "-np", 1, "-npfp", 1, **low)
            split = {"train": cases[:NUM_TRAINING], "val": cases[NUM_TRAINING:]}
            save_json([split], workspace.preprocessed / "splits_final.json")
            plans = load_json(workspace.preprocessed / "nnUNetPlans.json")
            configuration = plans["configurations"]["3d_fullres"]
            assert configuration["patch_size"] == list(SHAPE)
            network = configuration["architecture"]["arch_kwargs"]
            network["features_per_stage"] = [8, 16, 32, 32][: network["n_stages"]]
            save_json(plans, workspace.preprocessed / "nnUNetPlans.json")
    return workspaces


def trained(workspace: Workspace, kind: type[Any], **settings: Any) -> Any:
    plans = workspace.preprocessed / "nnUNetPlans.json"
    save_json({**load_json(plans), "nnunet_ext": {kind.settings_class.trainer: {**LENGTH, "seed": 0}}}, plans)
    trainer = workspace.trainer(without_augmentation(kind), "nnUNetPlans", **settings)
    trainer.run_training()
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    return trainer


@torch.no_grad()
def mean_dice(trainer: Any, *, zeroed: tuple[int, ...] = (), **options: Any) -> float:
    """Over the cases that were not there to learn from; the channels `zeroed` are zero after normalisation."""
    cases = trainer.do_split()[1]
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, cases)
    scores = []
    for case in cases:
        data, label, _, _ = dataset.load_case(case)
        images = torch.from_numpy(np.array(data))[None]
        images[:, list(zeroed)] = 0
        found, lesion = trainer.network(images, **options).argmax(1)[0].numpy() == 1, np.asarray(label[0]) == 1
        scores.append(2 * (lesion & found).sum() / (lesion.sum() + found.sum()))
    return float(np.mean(scores))


@pytest.mark.slow
def test_one_modality_alone_is_enough_for_maml_but_not_for_early_fusion(
    phantoms: dict[str, Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = phantoms["both"].root
    for name in FOLDERS:
        monkeypatch.setenv(name, str(root / name))
    for name, value in (("nnUNet_n_proc_DA", "0"), ("nnUNet_def_n_proc", "1"), ("nnUNet_extTrainer", str(SHIM))):
        monkeypatch.setenv(name, value)
    early, maml = trained(phantoms["both"], BaselineTrainer), trained(phantoms["both"], MAMLTrainer)
    full = {"early": mean_dice(early), "MAML": mean_dice(maml)}
    print(full)
    for modality, name in enumerate(("first", "second")):
        zeroed = mean_dice(early, zeroed=(1 - modality,))
        alone, single = mean_dice(maml, present=(modality,)), mean_dice(trained(phantoms[name], BaselineTrainer))
        print(name, {"early, other zeroed": zeroed, "MAML": alone, "single": single})
        assert alone > zeroed + 0.2, "a wide margin"
        assert alone > single - 0.05, "not worse than a network of its own"
    assert min(full.values()) > 0.7, "both have learned"
