"""Tiny X-ray data sets in the layout of nnUNet_raw."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def nnunet_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nnUNet_raw, nnUNet_preprocessed and nnUNet_results in an empty folder, which is returned."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


@pytest.fixture
def make_xrays(nnunet_folders: Path) -> Callable[..., Path]:
    """Writes Dataset<identifier>_Xrays: image i is of patient p<i>, shows class i modulo the number of classes, and is
    for training unless i modulo 5 is 4. Returns its folder in nnUNet_raw."""

    def make(
        identifier: int = 700,
        number: int = 10,
        classes: tuple[str, ...] = ("healthy", "covid"),
        task: str = "multiclass",
        side: int = 24,
    ) -> Path:
        folder = nnunet_folders / "nnUNet_raw" / f"Dataset{identifier}_Xrays"
        (folder / "imagesTr").mkdir(parents=True)
        block = {"classification": {"task": task, "classes": list(classes), "labels_file": "labels.csv"}}
        content = {"channel_names": {"0": "X-ray"}, "file_ending": ".png", "numTraining": number, "nnunet_ext": block}
        (folder / "dataset.json").write_text(json.dumps(content))
        generator = np.random.default_rng(identifier)
        rows = [["image", "patient", "split", *classes]]
        for i in range(number):
            name = f"imagesTr/x{i:03d}.png"
            Image.fromarray(generator.integers(0, 256, (side, side + 4), dtype=np.uint8)).save(folder / name)
            labels = [int(c == i % len(classes)) for c in range(len(classes))]
            rows.append([name, f"p{i}", "val" if i % 5 == 4 else "train", *labels])
        with (folder / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        return folder

    return make
