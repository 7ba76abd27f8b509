"""Any task of the Medical Segmentation Decathlon (Antonelli et al., Nature Communications 13, 2022)."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_ext.dataset_conversion.base import (
    Case,
    Conversion,
    case_name,
    needed_folder,
    nifti_files,
    paired,
    reference,
    unique_by_name,
)
from nnunet_ext.dataset_conversion.folds import patient_folds
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json

HELP = "any task of the Medical Segmentation Decathlon, such as Task06_Lung (non-target data of the RDCL paper)"
NAME = "MSD"
OPTIONS = ("ignore_label_headers",)


def plan(source: Path, ignore_label_headers: bool = False) -> Conversion:
    """The labelled volumes of one task to train, those of ``imagesTs``, if there are any, to test, without labels.

    Channels and labels are those of the task's ``dataset.json``; an image of several channels is split into one file
    per channel, as nnU-Net's own converter does. With `ignore_label_headers` label maps take the header of their image.
    """
    from nnunet_ext.dataset_conversion.ct import finish_ct, process_ct

    images = {case_name(f): f for f in nifti_files(needed_folder(source / "imagesTr", "the images of one MSD task"))}
    masks = {case_name(f): f for f in nifti_files(needed_folder(source / "labelsTr", "the labels of one MSD task"))}
    content, channels, labels = _description(source / "dataset.json")
    cases = paired(
        images,
        masks,
        no_label="no label map in labelsTr",
        no_image="a label map, but no image in imagesTr",
    )
    if not cases:
        raise UsageError(f"{source / 'imagesTr'} holds no .nii.gz")
    for file in _listed(content):
        name = case_name(file)
        if name not in images and name not in masks:
            cases.append(Case(name, name, "train", source / file, problem="dataset.json lists it, but it is missing"))
    if (source / "imagesTs").is_dir():
        cases += [Case(case_name(f), case_name(f), "test", f) for f in nifti_files(source / "imagesTs")]
    return Conversion(
        converter="msd",
        source=source,
        cases=unique_by_name(cases),
        dataset_json={"channel_names": channels, "labels": labels}
        | reference(
            str(content.get("description", "")),
            str(content.get("reference", "http://medicaldecathlon.com")),
            str(content.get("licence", "CC BY-SA 4.0")),
        ),
        process=partial(
            process_ct,
            num_labels=len(labels),
            num_channels=len(channels),
            label_header="ignore" if ignore_label_headers else "check",
        ),
        finish=finish_ct,
        options={"ignore_label_headers": ignore_label_headers},
        tables=(source / "dataset.json",),
        folds=patient_folds,
        name=_name(source),
    )


def _description(file: Path) -> tuple[dict[str, Any], dict[str, str], dict[str, int]]:
    """The content of a task's dataset.json, its channels as nnU-Net v2 names them, and its labels.

    Raises:
        UsageError: not a dataset.json of the MSD, or labels that are not 0 (background), 1, 2 and so on.
    """
    content = load_json(file)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in ("modality", "labels")):
        raise UsageError(f"{file} is not that of an MSD task: it needs 'modality' and 'labels', number -> name each")
    names = {number: str(name) for number, name in content["labels"].items()} | {"0": "background"}
    labels = {names[number]: int(number) for number in sorted(names, key=int)}
    if list(labels.values()) != list(range(len(names))):
        raise UsageError(f"{file}: labels {content['labels']} must be numbered 0, 1, 2, ... and have different names")
    channels = content["modality"]
    if sorted(channels) != [str(index) for index in range(len(channels))]:
        raise UsageError(f"{file}: modality {channels} must be numbered 0, 1, 2, ...")
    return content, {number: str(name) for number, name in channels.items()}, labels


def _listed(content: dict[str, Any]) -> list[Path]:
    """The training images that dataset.json names, relative to its folder."""
    return [Path(entry["image"]) for entry in content.get("training", []) if isinstance(entry, dict)]


def _name(source: Path) -> str | None:
    """``Task04_Hippocampus`` -> ``Hippocampus``; None for other folder names."""
    match = re.fullmatch(r"Task\d+_([A-Za-z0-9_-]+)", source.resolve().name)
    return match[1] if match else None
