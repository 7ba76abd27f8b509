"""COVID-SemiSeg (Fan et al., IEEE TMI 39, 2020): 98 lung CT slices with lesion masks and 1,600 without, in 8 bits."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from nnunet_ext.dataset_conversion.base import (
    BadCaseError,
    Case,
    Conversion,
    Entry,
    Split,
    needed_folder,
    paired,
    reference,
    unique_by_name,
)
from nnunet_ext.dataset_conversion.folds import patient_folds
from nnunet_ext.utilities.datasets import RELATIONS_KEY
from nnunet_ext.utilities.errors import UsageError

HELP = "COVID-SemiSeg: 2D lung CT slices with infection masks, and 1,600 without (2D data of the RDCL paper)"
NAME = "COVIDSemiSeg"
OPTIONS = ("task", "unlabeled", "coronacases_window")

TASKS: dict[str, tuple[str, str, dict[str, int]]] = {
    "infection": (
        "LungInfection-Train/Doctor-label",
        "LungInfection-Test",
        {"background": 0, "infection": 1},
    ),
    "multiclass": (
        "MultiClassInfection-Train",
        "MultiClassInfection-Test",
        {"background": 0, "ground_glass": 1, "consolidation": 2},
    ),
}
UNLABELLED = "LungInfection-Train/Pseudo-label/Imgs"
GREY_OF_LABELS = {0: 0, 1: 1, 2: 2, 38: 1, 75: 2}
"""Multi-class masks in grey: label numbers, or the luminance of red (128, 0, 0) and green (0, 128, 0), which is what
the authors' own loader compares with."""

Window = tuple[float, float]
WINDOW: Window = (-1250.0, 250.0)
"""HU of 0 and 255, about, in the labelled slices: a lung window, in which soft tissue is near 219."""


def plan(
    source: Path, task: str = "infection", unlabeled: bool = False, coronacases_window: Window | None = None
) -> Conversion:
    """The labelled slices: Doctor-label to train, the test set, if it is there, to test.

    With `unlabeled`, the slices of Pseudo-label instead, grouped by patient, with masks that are all background and
    say nothing; pseudo-labels that lie beside them are never read. `coronacases_window` is what 0 and 255 stand for in
    HU in those of the Coronacases, which are darker than all others: they are then brought to the window of the others.
    """
    from nnunet_ext.dataset_conversion.slices import finish_slices

    if task not in TASKS:
        raise UsageError(f"--task {task} is not one of {', '.join(TASKS)}")
    if coronacases_window is not None and not unlabeled:
        raise UsageError("--coronacases-window concerns the slices without labels; give --unlabeled as well")
    if coronacases_window is not None and coronacases_window[0] >= coronacases_window[1]:
        low, high = coronacases_window
        raise UsageError(f"--coronacases-window {low:g} {high:g}: the first must be below the second")
    labels = TASKS[task][2]
    root = _root(source)
    description: dict[str, Any] = {"labels": labels}
    if unlabeled:
        description[RELATIONS_KEY] = {"labels": "none"}
    return Conversion(
        converter="covid_semiseg",
        source=source,
        cases=unique_by_name(_unlabelled(root) if unlabeled else _labelled(root, task)),
        dataset_json=description
        | reference(
            "COVID-SemiSeg" + (", slices without labels: the label maps are empty and mean nothing" * unlabeled),
            "https://github.com/DengPingFan/Inf-Net",
            "for non-commercial research only",
        ),
        process=partial(process_slice, task=task, coronacases_window=coronacases_window),
        finish=finish_slices,
        options={
            "task": task,
            "unlabeled": unlabeled,
            "coronacases_window": coronacases_window and [*coronacases_window],
        },
        folds=patient_folds,
        name=f"{NAME}Unlabeled" if unlabeled else None,
    )


def process_slice(case: Case, folder: Path, *, task: str, coronacases_window: Window | None = None) -> Entry:
    """Check one slice and its mask and write both as PNG; a case without mask gets one that is all background.

    Returns: shape (rows, columns in pixels), pixels per label, files, and intensity if that was changed.

    Raises:
        BadCaseError: unreadable, empty image, other size of the mask, or a mask that does not decode.
    """
    from nnunet_ext.dataset_conversion.slices import grey_values, to_8_bits, write_slice
    from nnunet_ext.dataset_conversion.xray import read_picture

    image = grey_values(read_picture(case.image, "image"))
    windowed = coronacases_window is not None and case.patient.startswith("coronacases")
    if coronacases_window is not None and windowed:
        low, high = coronacases_window
        image = to_8_bits(image / 255 * (high - low) + low, WINDOW)
    label = np.zeros_like(image)
    if case.label is not None:
        mask = read_picture(case.label, "mask")
        if mask.size != image.shape[::-1]:
            raise BadCaseError(f"size mismatch: image {image.shape[::-1]}, mask {mask.size} (columns, rows)")
        label = _decoded(mask, task)
    files = write_slice(folder, "Ts" if case.split == "test" else "Tr", case.name, image, label)
    entry: Entry = {"shape": list(image.shape), "files": files}
    if windowed:
        entry["intensity"] = f"from the window {low:g}..{high:g} to {WINDOW[0]:g}..{WINDOW[1]:g}"
    if case.label is not None:
        entry["label_voxels"] = {str(i): int(np.count_nonzero(label == i)) for i in TASKS[task][2].values()}
    return entry


def _decoded(mask: Image.Image, task: str) -> npt.NDArray[np.uint8]:
    if task == "infection":
        return binary_label(np.asarray(mask.convert("L")))
    return grey_label(np.asarray(mask)) if mask.mode == "L" else colour_label(np.asarray(mask.convert("RGB")))


def binary_label(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Black to 0, white to 1, by the threshold 128 since JPEG blurs edges; a mask of 0 and 1 is taken as it is.

    Raises:
        BadCaseError: more than one pixel in twenty is neither dark nor bright: this is no mask.
    """
    if mask.max() <= 1:
        return np.array(mask, np.uint8)
    between = np.count_nonzero((mask >= 64) & (mask < 192)) / mask.size
    if between > 0.05:
        raise BadCaseError(f"mask is not binary: {between:.0%} of its pixels are neither black nor white")
    return np.asarray(mask >= 128, np.uint8)


def grey_label(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Multi-class mask in grey to 0, ground glass 1, consolidation 2; BadCaseError for other values."""
    wrong = sorted(set(np.unique(mask).tolist()) - set(GREY_OF_LABELS))
    if wrong:
        raise BadCaseError(f"label out of range: {wrong[:5]}; expected {', '.join(map(str, GREY_OF_LABELS))}")
    table = np.zeros(256, np.uint8)
    table[list(GREY_OF_LABELS)] = list(GREY_OF_LABELS.values())
    return np.asarray(table[mask], np.uint8)


def colour_label(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Multi-class mask (rows, columns, RGB) to 0 (black), ground glass 1 (red), consolidation 2 (green).

    Raises:
        BadCaseError: another colour.
    """
    red, green, blue = np.moveaxis(mask >= 64, -1, 0)
    wrong = np.count_nonzero(blue | (red & green))
    if wrong:
        raise BadCaseError(f"mask has {wrong} pixels that are neither black nor red nor green")
    return np.asarray(red + 2 * green, np.uint8)


def _root(source: Path) -> Path:
    """The folder that holds TrainingSet: `source` or the Dataset folder in it."""
    for folder in (source, source / "Dataset", source / "COVID-SemiSeg" / "Dataset", source / "COVID-SemiSeg"):
        if (folder / "TrainingSet").is_dir():
            return folder
    return needed_folder(source / "TrainingSet", "LungInfection-Train")


def _labelled(root: Path, task: str) -> list[Case]:
    training, test, _ = TASKS[task]
    folders: list[tuple[Path, Split]] = [(needed_folder(root / "TrainingSet" / training, "Imgs and GT"), "train")]
    if (root / "TestingSet" / test).is_dir():
        folders.append((root / "TestingSet" / test, "test"))
    cases = []
    for folder, split in folders:
        images = _pictures(folder / "Imgs", "slices")
        masks = _pictures(folder / "GT", "masks")
        cases += paired(images, masks, split=split, no_label="no mask in GT", no_image="a mask, but no slice in Imgs")
    if not cases:
        raise UsageError(f"{root / 'TrainingSet' / training / 'Imgs'} holds no .jpg or .png")
    return cases


def _unlabelled(root: Path) -> list[Case]:
    images = _pictures(root / "TrainingSet" / UNLABELLED, "slices without labels")
    if not images:
        raise UsageError(f"{root / 'TrainingSet' / UNLABELLED} holds no .jpg or .png")
    return [Case(name, patient(name), "train", image) for name, image in images.items()]


def _pictures(folder: Path, what: str) -> dict[str, Path]:
    """Case name -> file; ``7.jpg`` is ``slice_007``, so that names sort like the numbers."""
    from nnunet_ext.dataset_conversion.xray import is_image

    files = sorted(f for f in needed_folder(folder, what).iterdir() if is_image(f))
    pictures: dict[str, Path] = {}
    for file in files:
        name = f"slice_{int(file.stem):03d}" if file.stem.isdecimal() else file.stem
        if name in pictures:
            raise UsageError(f"{pictures[name]} and {file} are one slice; remove one")
        pictures[name] = file
    return pictures


def patient(name: str) -> str:
    """``Data-1_coronacases_org_001_42`` is of ``coronacases_001``, ``..._covid-19-pneumonia-10_85902_1-dcm_42`` of
    ``radiopaedia_10``: volumes of one Radiopaedia case count as one patient. Any other name: what precedes the number
    of the slice.
    """
    if match := re.search(r"coronacases_org_(\d+)_", name):
        return f"coronacases_{match[1]}"
    if match := re.search(r"radiopaedia_org_.*?-(\d+)_\d+_\d+", name):
        return f"radiopaedia_{match[1]}"
    return name.rpartition("_")[0] or name
