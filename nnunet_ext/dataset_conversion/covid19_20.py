"""COVID-19-20 (Roth et al., Medical Image Analysis 82, 2022): 199 CTs with COVID-19 lesions, 50 without labels."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from nnunet_ext.dataset_conversion.base import Case, Conversion, case_name, needed_folder, reference, unique_by_name
from nnunet_ext.dataset_conversion.folds import Fold, patient_folds
from nnunet_ext.utilities.errors import UsageError

HELP = "COVID-19-20 challenge: 199 CTs with lesion masks (target data of the UCI paper)"
NAME = "COVID1920"
OPTIONS: tuple[str, ...] = ()

LAST_TRAINING_NUMBER = 537
FIRST_HELD_OUT_NUMBER = 547
PUBLISHED_SIZES = (149, 50)
UNLABELLED = re.compile(r"(validation|val|test)(?![a-z])", re.IGNORECASE)
"""Folders of CTs that come without masks."""


def plan(source: Path) -> Conversion:
    """Pair every ``*_ct`` with its ``*_seg``, in any folder below `source`.

    A CT without a mask is a test case if a folder between `source` and it is called Validation or Test, else bad.
    """
    from nnunet_ext.dataset_conversion.ct import finish_ct, process_ct

    files = sorted(f for f in needed_folder(source, "Train/*_ct.nii.gz").rglob("*.nii*") if not f.name.startswith("."))
    images = [f for f in files if case_name(f).endswith("_ct")]
    if not images:
        raise UsageError(f"{source} holds no *_ct.nii.gz; expected Train/volume-covid19-A-0003_ct.nii.gz and so on")
    masks = {f.parent / case_name(f).removesuffix("_seg"): f for f in files if case_name(f).endswith("_seg")}
    cases = []
    for image in images:
        mask = masks.pop(image.parent / case_name(image).removesuffix("_ct"), None)
        unlabelled = any(UNLABELLED.match(folder) for folder in image.relative_to(source).parts[:-1])
        cases.append(_case(image, mask, unlabelled))
    for stem, mask in masks.items():
        cases.append(Case(stem.name, patient(stem.name), "train", mask, problem=f"no {stem.name}_ct.nii.gz beside it"))
    return Conversion(
        converter="covid19_20",
        source=source,
        cases=unique_by_name(cases),
        dataset_json={"labels": {"background": 0, "lesion": 1}}
        | reference(
            "COVID-19-20 Lung CT Lesion Segmentation Challenge",
            "https://covid-segmentation.grand-challenge.org/COVID-19-20/",
            "terms of the challenge",
        ),
        process=partial(process_ct, num_labels=2),
        finish=finish_ct,
        folds=folds,
    )


def _case(image: Path, mask: Path | None, unlabelled: bool) -> Case:
    name = case_name(image).removesuffix("_ct")
    if mask is not None:
        return Case(name, patient(name), "train", image, mask)
    if unlabelled:
        return Case(name, patient(name), "test", image)
    return Case(name, patient(name), "train", image, problem=f"no {name}_seg.nii.gz beside it")


def patient(name: str) -> str:
    """``volume-covid19-A-0047_1`` and ``volume-covid19-A-0047_day003`` are CTs of patient ``0047``."""
    match = re.match(r"volume-covid19-A-(\d+)", name)
    return match[1] if match else name


def folds(patients: dict[str, str]) -> list[Fold]:
    """Five patient-grouped folds; for the 199 published cases, six.

    Then fold 0 is the published split, 149 to train and 50 to test on, and folds 1 to 5 are five patient-grouped folds
    within the 149, so that choices can be made without looking at the 50.
    """
    numbers = {name: int(number) if number.isdigit() else -1 for name, number in patients.items()}
    training = sorted(name for name, number in numbers.items() if 0 <= number <= LAST_TRAINING_NUMBER)
    held_out = sorted(name for name, number in numbers.items() if number >= FIRST_HELD_OUT_NUMBER)
    if (len(training), len(held_out)) != PUBLISHED_SIZES or len(patients) != sum(PUBLISHED_SIZES):
        return patient_folds(patients)
    return [{"train": training, "val": held_out}, *patient_folds({name: patients[name] for name in training})]
