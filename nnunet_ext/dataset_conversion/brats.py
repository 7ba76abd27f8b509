"""BraTS (Menze et al., IEEE TMI 34, 2015, and the yearly releases since 2017): gliomas in T1, T1ce, T2 and FLAIR."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_ext.dataset_conversion.base import (
    Case,
    Conversion,
    Entry,
    case_name,
    needed_folder,
    reference,
    unique_by_name,
)
from nnunet_ext.dataset_conversion.folds import patient_folds
from nnunet_ext.utilities.errors import UsageError

HELP = "BraTS 2017 to 2024: gliomas in T1, T1ce, T2 and FLAIR (data of the MAML paper)"
NAME = "BraTS"
OPTIONS = ("task",)

CHANNELS = ("T1", "T1ce", "T2", "FLAIR")
TASKS = ("labels", "regions")
LABELS = {"background": 0, "edema": 1, "non-enhancing": 2, "enhancing": 3}
REGIONS = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}
"""As nnU-Net's own converters number and name them."""
CAVITY, CAVITY_LABEL = "RC", 4

UNLABELLED = re.compile(r"validation|(?<![a-z])test", re.IGNORECASE)
"""Folders of cases that come without label maps."""


@dataclasses.dataclass(frozen=True)
class Naming:
    """How a generation of releases names its files and numbers its labels.

    Attributes:
        file: file name without ending, with the groups case and kind.
        kinds: how `CHANNELS` and then the label map are called.
        separator: what stands between case and kind.
        decode: value in the label map -> label.
    """

    file: re.Pattern[str]
    kinds: tuple[str, ...]
    separator: str
    decode: dict[int, int]


UP_TO_2021 = Naming(
    re.compile(r"(?P<case>.+)_(?P<kind>t1|t1ce|t2|flair|seg)"),
    ("t1", "t1ce", "t2", "flair", "seg"),
    "_",
    {0: 0, 1: 2, 2: 1, 4: 3},
)
FROM_2023 = Naming(
    re.compile(r"(?P<case>BraTS-[A-Za-z]+-\d+-\d+)-(?P<kind>t1n|t1c|t2w|t2f|seg)"),
    ("t1n", "t1c", "t2w", "t2f", "seg"),
    "-",
    {0: 0, 1: 2, 2: 1, 3: 3, 4: CAVITY_LABEL},
)


def plan(source: Path, task: str = "labels") -> Conversion:
    """Every case below `source`, whichever of the two generations of names its files have.

    A case without label map is a test case if a folder between `source` and it is called Validation or Test, else bad,
    as is one that lacks a contrast.
    """
    from nnunet_ext.dataset_conversion.ct import process_ct

    if task not in TASKS:
        raise UsageError(f"--task {task} is not one of {', '.join(TASKS)}")
    naming, files = _found(source)
    return Conversion(
        converter="brats",
        source=source,
        cases=unique_by_name([_case(name, found, naming, source) for name, found in files.items()]),
        dataset_json={"channel_names": {str(index): name for index, name in enumerate(CHANNELS)}}
        | reference("Brain Tumor Segmentation Challenge", "https://www.synapse.org/brats", "terms of the challenge"),
        process=partial(process_ct, num_labels=max(naming.decode.values()) + 1, decode=naming.decode),
        finish=partial(finish_brats, task=task),
        options={"task": task},
        folds=patient_folds,
    )


def finish_brats(folder: Path, conversion: Conversion, entries: dict[str, Entry], *, task: str) -> None:
    """What `finish_ct` does, with the resection cavity among the labels if any case has one."""
    from nnunet_ext.dataset_conversion.ct import finish_ct

    cavity = any(entry.get("label_voxels", {}).get(str(CAVITY_LABEL)) for entry in entries.values())
    content = conversion.dataset_json | classes(task, cavity)
    finish_ct(folder, dataclasses.replace(conversion, dataset_json=content), entries)


def classes(task: str, cavity: bool) -> dict[str, Any]:
    """What dataset.json says about labels or, as nnU-Net has it, about regions and the order they are drawn in."""
    if task == "labels":
        return {"labels": LABELS | ({CAVITY: CAVITY_LABEL} if cavity else {})}
    extra = [CAVITY_LABEL] if cavity else []
    return {"labels": REGIONS | ({CAVITY: extra} if cavity else {}), "regions_class_order": [1, 2, 3, *extra]}


def patient(name: str) -> str:
    """``BraTS-GLI-00005-100`` is time point 100 of ``BraTS-GLI-00005``, ``Brats18_2013_2_1`` time point 1 of
    ``Brats18_2013_2``. In other names a number at the end is the patient's own."""
    match = re.fullmatch(r"(BraTS-[A-Z]+-\d+)-\d+|(brats1\d_.+)_\d+", name, re.IGNORECASE)
    return next(group for group in match.groups() if group) if match else name


def _found(source: Path) -> tuple[Naming, dict[str, dict[str, Path]]]:
    """How files below `source` are named, and case -> kind -> file.

    Raises:
        UsageError: no file of BraTS, an image that is there twice, several releases, another tumour.
    """
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    namings = set()
    layout = "BraTS2021_00000/BraTS2021_00000_t1.nii.gz or BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz"
    for file in sorted(needed_folder(source, layout).rglob("[!.]*.nii*")):
        for naming in (UP_TO_2021, FROM_2023):
            if file.is_file() and (match := naming.file.fullmatch(case_name(file))):
                kinds = found[match["case"]]
                if match["kind"] in kinds:
                    raise UsageError(f"{kinds[match['kind']]} and {file} have one name; remove one")
                kinds[match["kind"]] = file
                namings.add(naming.separator)
    if not found:
        raise UsageError(f"{source} holds no case of BraTS; expected {layout} and so on")
    _check_release(source, found)
    return (UP_TO_2021 if namings == {UP_TO_2021.separator} else FROM_2023), found


def _check_release(source: Path, names: dict[str, Any]) -> None:
    """UsageError for more than one release (they share patients under different names) or for other tumours."""
    releases = {}
    for name in names:
        match = re.match(r"brats(\d+|-[a-z]+)", name, re.IGNORECASE)
        releases[match[0].lower() if match else "other names"] = name
    if len(releases) > 1:
        raise UsageError(
            f"{source} holds several releases ({', '.join(releases.values())}), which share patients under different"
            " names; convert one of them"
        )
    if tumours := [name for release, name in releases.items() if release.startswith("brats-") and release[6:] != "gli"]:
        raise UsageError(f"{tumours[0]} is not of BraTS-GLI; other tumours number their labels differently")


def _case(name: str, files: dict[str, Path], naming: Naming, source: Path) -> Case:
    folder = next(iter(files.values())).parent
    expected = {kind: f"{name}{naming.separator}{kind}" for kind in naming.kinds}
    images = [files.get(kind, folder / f"{expected[kind]}.nii.gz") for kind in naming.kinds[:-1]]
    label = files.get(naming.kinds[-1])
    below = folder.relative_to(source).parts
    test = label is None and any(UNLABELLED.search(part) for part in below)
    contrasts = zip(naming.kinds, (*CHANNELS, "label map"), strict=True)
    missing = [f"no {what} ({expected[kind]})" for kind, what in contrasts if kind not in files]
    if test:
        missing = missing[:-1]
    return Case(
        name,
        patient(name),
        "test" if test else "train",
        images[0],
        label,
        problem=" and ".join(missing) or None,
        channels=tuple(images[1:]),
    )
