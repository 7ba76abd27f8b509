"""Toy data sets, and the commands as a user runs them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
SHIM = REPOSITORY / "nnunet_ext" / "nnunet_trainers"
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def command(name: str, *arguments: object, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an installed command as a user does; returns its exit code and what it printed."""
    program = [str(Path(sys.executable).parent / name)]
    if name == "nnunet_ext":
        program = [sys.executable, "-m", "nnunet_ext.cli.main"]
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    result = subprocess.run(
        [*program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    if check and result.returncode:
        raise AssertionError(f"{name} {arguments} failed:\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}")
    return result


@dataclass(frozen=True)
class Workspace:
    """nnU-Net's folders with a linked toy target (998) and toy X-rays (997)."""

    root: Path
    target: str = "Dataset998_Toy"
    xrays: str = "Dataset997_ToyXrays"

    @property
    def preprocessed(self) -> Path:
        return self.root / "nnUNet_preprocessed" / self.target

    @property
    def raw(self) -> Path:
        return self.root / "nnUNet_raw" / self.target

    def copied(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
        """A copy of these folders as the current nnU-Net folders: a test may change or delete what it likes."""
        shutil.copytree(self.root, root)
        for name in FOLDERS:
            monkeypatch.setenv(name, str(root / name))
        for name, value in (("nnUNet_n_proc_DA", "0"), ("nnUNet_def_n_proc", "1"), ("OMP_NUM_THREADS", "1")):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("nnUNet_extTrainer", str(SHIM))
        return Workspace(root, self.target, self.xrays)

    def trainer(self, kind: type[Any], plans_name: str, configuration: str = "3d_fullres", **settings: Any) -> Any:
        """A trainer of fold 0 on the CPU; `settings` besides those in the plans."""
        import torch

        plans = json.loads((self.preprocessed / f"{plans_name}.json").read_text())
        plans["nnunet_ext"][kind.settings_class.trainer].update(settings)
        dataset_json = json.loads((self.preprocessed / "dataset.json").read_text())
        return kind(plans, configuration, 0, dataset_json, torch.device("cpu"))


def weights(trainer: Any) -> dict[str, Any]:
    """A copy of what the network has learned."""
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


def write_toy_ct(
    folder: Path, num_cases: int = 5, name: str = "toy", labelled: bool = True, flat: bool = False
) -> None:
    """Noise with a bright box (label 1) of varying place, 16 x 36 x 32 voxels at 3 x 1.5 x 1.5 mm.

    Cases are called ``{name}_000``, ...; `labelled`: with labelsTr; `flat`: 2D images, a slice through each box.
    """
    for sub in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / sub).mkdir(parents=True)
    for case in range(num_cases + 1):
        generator = np.random.default_rng(case)
        image = generator.normal(-500, 100, (16, 36, 32)).astype(np.int16)
        label = np.zeros(image.shape, np.uint8)
        z, y, x = generator.integers(2, (8, 18, 16))
        label[z : z + 6, y : y + 12, x : x + 10] = 1
        image[label == 1] += 800
        test = case == num_cases
        for file, array in (
            (f"images{'Ts' if test else 'Tr'}/{name}_{case:03d}_0000", image),
            (f"labelsTr/{name}_{case:03d}", label),
        ):
            if file.startswith("labels") and (test or not labelled):
                continue
            volume = sitk.GetImageFromArray(array[z] if flat else array)
            volume.SetSpacing((1.5, 1.5) if flat else (1.5, 1.5, 3.0))
            sitk.WriteImage(volume, folder / f"{file}.nii.gz")
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "box": 1},
        "numTraining": num_cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def write_toy_xrays(folder: Path, num_images: int = 12) -> None:
    """Noise whose brightness tells the class (dark, bright), 40 x 36 pixels."""
    (folder / "imagesTr").mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "patient", "split", "dark", "bright"])
        for number in range(num_images):
            bright = number % 2
            pixels = np.random.default_rng(number).normal(60 + 120 * bright, 20, (40, 36)).clip(0, 255)
            name = f"imagesTr/xray_{number:03d}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
            writer.writerow([name, number, "test" if number >= num_images - 2 else "train", 1 - bright, bright])
    classification = {"task": "multiclass", "classes": ["dark", "bright"], "labels_file": "labels.csv"}
    content = {
        "name": "ToyXrays",
        "channel_names": {"0": "X-ray"},
        "labels": {"background": 0},
        "numTraining": num_images,
        "file_ending": ".png",
        "nnunet_ext": {"classification": classification},
    }
    (folder / "dataset.json").write_text(json.dumps(content))
