"""Further data sets that a target learns from (``non_target``, ``unlabeled``): preprocessed with the target's plans.

``$nnUNet_preprocessed/Dataset301_X/nnUNetPlans_3d_fullres_of_201/`` holds the cases of 301 as the plans of 201 want
them, in nnU-Net's own format; the record beside it says what they stem from.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nnunet_ext.utilities.datasets import dataset_id, dataset_name, nnunet_folder, relations
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json

Kind = Literal["non_target", "unlabeled"]
FLAGS: dict[Kind, str] = {"non_target": "--non-target", "unlabeled": "--unlabeled"}
VERSION = 1
PREPROCESSING_KEYS = (
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)


@dataclass(frozen=True)
class RawCase:
    """The files of one case in ``nnUNet_raw``; the label file may be absent."""

    name: str
    images: tuple[Path, ...]
    label: Path


def related_name(name: str, target: str) -> str:
    """A plans name or data identifier of `target`, as it is called in the folder of another data set."""
    return f"{name}_of_{dataset_id(target)}"


def related_folder(name: str, data_identifier: str, target: str) -> Path:
    """Where data set `name` lies when it is preprocessed as `target`'s plans want it."""
    return nnunet_folder("nnUNet_preprocessed") / name / related_name(data_identifier, target)


def record_file(folder: Path) -> Path:
    """The record of a `related_folder`; beside it, since nnU-Net tells the format of a folder by its files."""
    return folder.with_name(f"{folder.name}.link.json")


def preprocessing_hash(plans: dict[str, Any], configuration: dict[str, Any]) -> str:
    """Hex digest of all that decides how a case is preprocessed; patch and network do not.

    Args:
        plans: the whole plans file.
        configuration: one configuration in it, inherited values filled in.
    """
    content = {key: configuration.get(key) for key in PREPROCESSING_KEYS}
    content |= {key: plans.get(key) for key in ("transpose_forward", "foreground_intensity_properties_per_channel")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def raw_cases(name: str) -> list[RawCase]:
    """The training cases of ``$nnUNet_raw/{name}``, by name; every case has all its channels.

    Raises:
        UsageError: no such folder, no case, or a case that lacks a channel.
    """
    folder = nnunet_folder("nnUNet_raw") / name
    dataset_json = load_json(folder / "dataset.json")
    ending = dataset_json["file_ending"]
    images: dict[str, list[Path]] = {}
    labels: dict[str, Path] = {}
    if "dataset" in dataset_json:
        for case, files in dataset_json["dataset"].items():
            images[case] = [folder / image for image in files["images"]]
            labels[case] = folder / files["label"]
    else:
        pattern = re.compile(rf"(.+)_\d{{4}}{re.escape(ending)}")
        for file in sorted((folder / "imagesTr").glob(f"*{ending}")):
            if match := pattern.fullmatch(file.name):
                images.setdefault(match[1], []).append(file)
    if not images:
        raise UsageError(f"{name} has no image in {folder / 'imagesTr'} (CASE_0000{ending}); convert it first")
    channels = len(channel_names(dataset_json))
    for case, files in images.items():
        if len(files) != channels:
            raise UsageError(f"case {case} of {name} has {len(files)} images, but the data set has {channels} channels")
    labelled = folder / "labelsTr"
    return [RawCase(c, tuple(images[c]), labels.get(c, labelled / f"{c}{ending}")) for c in sorted(images)]


def channel_names(dataset_json: dict[str, Any]) -> list[str]:
    """The names of the channels in order."""
    names = dataset_json["channel_names"]
    return [str(names[key]) for key in sorted(names, key=int)]


def raw_fingerprint(cases: Sequence[RawCase], with_labels: bool) -> str:
    """Hex digest of names, sizes and times of change of the files: another one means other data."""
    content = []
    for case in cases:
        for file in (*case.images, *([case.label] if with_labels else [])):
            status = file.stat()
            content.append((case.name, file.name, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def load_record(folder: Path) -> dict[str, Any] | None:
    """The record of a `related_folder`; None if folder or record is absent or the record is of another version."""
    file = record_file(folder)
    if not folder.is_dir() or not file.is_file():
        return None
    record: dict[str, Any] = load_json(file)
    return record if record.get("version") == VERSION else None


def missing_cases(folder: Path, record: dict[str, Any]) -> list[str]:
    """Cases of the record that are not in the folder."""
    return [case for case in record["cases"] if not (folder / f"{case}.pkl").is_file()]


def related_cases(
    dataset_json: dict[str, Any], kind: Kind, plans_manager: Any, configuration: str
) -> dict[Path, tuple[str, ...]]:
    """Folder -> names of the cases of every data set that a target is linked to.

    Args:
        dataset_json: of the target.
        kind: which relation.
        plans_manager: nnU-Net's, of the target's plans.
        configuration: e.g. ``3d_fullres``.

    Raises:
        UsageError: no relation, or a data set that is not preprocessed with the target's plans as they are now; names
            the command that repairs it.
    """
    target = plans_manager.dataset_name
    identifiers = relations(dataset_json).get(kind)
    command = f"nnunet_ext link {dataset_id(target)} {FLAGS[kind]}"
    if not isinstance(identifiers, list) or not identifiers:
        raise UsageError(f"{target} is linked to no {kind} data set; run: {command} ID")
    command += f" {' '.join(map(str, identifiers))} -c {configuration} -p {plans_manager.plans_name}"
    manager = plans_manager.get_configuration(configuration)
    expected = preprocessing_hash(plans_manager.plans, manager.configuration)
    found = {}
    for identifier in identifiers:
        name = dataset_name(identifier)
        folder = related_folder(name, manager.data_identifier, target)
        record = load_record(folder)
        if record is None:
            raise UsageError(
                f"{name} is not preprocessed with the plans of {target} for {configuration} ({folder}); run: {command}"
            )
        if record["preprocessing"] != expected:
            raise UsageError(f"{folder} was preprocessed with other plans of {target} than these; run: {command}")
        if record["kind"] != kind:
            raise UsageError(f"{folder} was prepared with {FLAGS[record['kind']]}; run: {command}")
        if missing := missing_cases(folder, record):
            raise UsageError(f"{folder} lacks {len(missing)} cases, e.g. {missing[0]}; run: {command}")
        found[folder] = tuple(record["cases"])
    return found
