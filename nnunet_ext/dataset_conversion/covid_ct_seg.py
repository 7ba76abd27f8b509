"""COVID-19-CT-Seg (Ma et al., Medical Physics 48, 2021): 10 Coronacases in HU and 10 windowed Radiopaedia CTs."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_ext.dataset_conversion.base import (
    BadCaseError,
    Case,
    Conversion,
    case_name,
    needed_folder,
    nifti_files,
    reference,
    unique_by_name,
)
from nnunet_ext.dataset_conversion.folds import Fold, patient_folds
from nnunet_ext.utilities.errors import UsageError

HELP = "COVID-19-CT-Seg benchmark: 20 CTs with infection and lung masks"
NAME = "COVIDCTSeg"
OPTIONS = ("task", "coronacases_window")

Window = tuple[float, float]
WINDOW: Window = (-1250.0, 250.0)
"""HU that 0 and 255 stand for in the Radiopaedia CTs: "adjusted to lung window [-1250,250], and then normalized to
[0,255]" (README of the authors' COVID-19-CT-Seg-Benchmark), who recommend the same window for the Coronacases."""

IMAGES = "COVID-19-CT-Seg_20cases"
TASKS: dict[str, tuple[str, dict[str, int]]] = {
    "infection": ("Infection_Mask", {"background": 0, "infection": 1}),
    "lung": ("Lung_Mask", {"background": 0, "left_lung": 1, "right_lung": 2}),
    "lung_and_infection": (
        "Lung_and_Infection_Mask",
        {"background": 0, "left_lung": 1, "right_lung": 2, "infection": 3},
    ),
}
BENCHMARK_CASES = (
    *(f"coronacases_{number:03d}" for number in range(1, 11)),
    *("radiopaedia_10_85902_1", "radiopaedia_10_85902_3", "radiopaedia_14_85914_0", "radiopaedia_27_86410_0"),
    *("radiopaedia_29_86490_1", "radiopaedia_29_86491_1", "radiopaedia_36_86526_0", "radiopaedia_40_86625_0"),
    *("radiopaedia_4_85506_1", "radiopaedia_7_85703_0"),
)
"""In sorted order."""


def plan(source: Path, task: str = "infection", coronacases_window: Window = WINDOW) -> Conversion:
    """Pair the CTs with the masks of `task`.

    `coronacases_window` is what 0 and 255 stand for in HU where the Coronacases come in 8 bits too, as in collections
    of exported slices; the original Coronacases are in HU and need none.
    """
    from nnunet_ext.dataset_conversion.ct import finish_ct, process_ct

    if task not in TASKS:
        raise UsageError(f"--task {task} is not one of {', '.join(TASKS)}")
    low, high = coronacases_window
    if low >= high:
        raise UsageError(f"--coronacases-window {low:g} {high:g}: the first must be below the second")
    mask_folder, labels = TASKS[task]
    images = {case_name(f): f for f in nifti_files(needed_folder(source / IMAGES, "CTs"))}
    masks = {case_name(f): f for f in nifti_files(needed_folder(source / mask_folder, f"the masks of --task {task}"))}
    if not images:
        raise UsageError(f"{source / IMAGES} holds no .nii.gz")
    cases = [
        Case(name, patient(name), "train", image, masks.get(name))
        if name in masks
        else Case(name, patient(name), "train", image, problem=f"no mask in {mask_folder}")
        for name, image in images.items()
    ]
    for name in masks.keys() - images.keys():
        cases.append(Case(name, patient(name), "train", masks[name], problem=f"a mask, but no CT in {IMAGES}"))
    return Conversion(
        converter="covid_ct_seg",
        source=source,
        cases=unique_by_name(cases),
        dataset_json={"labels": labels}
        | reference(
            "COVID-19 CT Lung and Infection Segmentation Dataset",
            "https://doi.org/10.5281/zenodo.3757476",
            "CC BY-NC-SA",
        ),
        process=partial(process_ct, num_labels=len(labels), rescale=partial(to_window, coronacases_window=(low, high))),
        finish=finish_ct,
        options={"task": task, "coronacases_window": [low, high]},
        folds=folds,
    )


def to_window(
    name: str, values: npt.NDArray[Any], coronacases_window: Window = WINDOW
) -> tuple[npt.NDArray[np.int16], str]:
    """Bring one CT to HU clipped to [-1250, 250], so that all have one scale and one range.

    Values within 0..255 are windowed: ``HU = value / 255 * (high - low) + low``. Anything else must be HU already,
    which in a chest always includes negative values (air).

    Returns: the values (int16, HU) and ``"HU"`` or ``"windowed LOW..HIGH"``.

    Raises:
        BadCaseError: neither.
    """
    smallest, largest = float(values.min()), float(values.max())
    low, high = coronacases_window if name.startswith("coronacases") else WINDOW
    if smallest >= 0 and largest > 255:
        raise BadCaseError(f"intensities {smallest:g}..{largest:g} are neither HU (no air) nor windowed to 0..255")
    windowed = smallest >= 0
    hounsfield = values.astype(np.float32) / 255 * (high - low) + low if windowed else values
    kind = f"windowed {low:g}..{high:g}" if windowed else "HU"
    return np.rint(np.clip(hounsfield, *WINDOW)).astype(np.int16), kind


def patient(name: str) -> str:
    """``radiopaedia_10_85902_1`` -> ``radiopaedia_10``: CTs of one Radiopaedia case count as one patient.

    The authors confirm this for the two of case 10 (issue 3 of their benchmark); for the two of case 29 it is caution.
    """
    match = re.search(r"(\d+)_\d+_\d+", name)
    return f"radiopaedia_{match[1]}" if match else name


def folds(patients: dict[str, str]) -> list[Fold]:
    """Five folds of 4 to train and 16 to test, as in the benchmark's Task 1, if all its 20 cases are there.

    The training cases of fold i are the i-th four of the sorted names, which never parts a patient. Whether these are
    the very fours of the authors' split file could not be confirmed. With other cases: five patient-grouped folds.
    """
    if set(patients) != set(BENCHMARK_CASES):
        return patient_folds(patients)
    names = sorted(patients)
    blocks = [names[start : start + 4] for start in range(0, len(names), 4)]
    return [{"train": block, "val": [name for name in names if name not in block]} for block in blocks]
