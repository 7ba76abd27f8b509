"""Where nnU-Net keeps a data set, and the relations between data sets that live in its ``dataset.json``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json, save_json

Folder = Literal["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"]
RELATIONS_KEY = "nnunet_ext"


def nnunet_folder(variable: Folder) -> Path:
    """The folder that an nnU-Net environment variable names.

    Raises:
        UsageError: the variable is not set, or names no folder.
    """
    value = os.environ.get(variable)
    if not value:
        raise UsageError(
            f"{variable} is not set; run: export {variable}=/path/to/{variable} (see also: nnunet_ext env)"
        )
    if not Path(value).is_dir():
        raise UsageError(f"{variable}={value} is not a folder; create it (mkdir -p {value}) or correct the variable")
    return Path(value)


def dataset_name(name_or_id: str | int) -> str:
    """``115``, ``"115"`` or ``"Dataset115_COVID"`` -> ``"Dataset115_COVID"``, by nnU-Net's own lookup.

    Raises:
        UsageError: no such data set, or several share the ID.
    """
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    variables = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    if not any(os.environ.get(variable) for variable in variables):
        nnunet_folder("nnUNet_raw")
    try:
        return str(maybe_convert_to_dataset_name(name_or_id))
    except (RuntimeError, ValueError) as error:
        if "More than one" in str(error):
            raise UsageError(" ".join(str(error).split())) from None
        searched = ", ".join(f"{variable}={os.environ[variable]}" for variable in variables if variable in os.environ)
        raise UsageError(
            f"there is no data set {name_or_id!r} in {searched}; give an ID such as 115 or a name such as"
            " Dataset115_COVID, and convert it first (nnunet_ext convert --help)"
        ) from None


def raw_folder(name_or_id: str | int) -> Path:
    """``$nnUNet_raw/DatasetXXX_Name``; raises UsageError when it is absent."""
    return _existing(
        nnunet_folder("nnUNet_raw") / dataset_name(name_or_id), "convert it first: nnunet_ext convert --help"
    )


def preprocessed_folder(name_or_id: str | int) -> Path:
    """``$nnUNet_preprocessed/DatasetXXX_Name``; raises UsageError when it is absent."""
    folder = nnunet_folder("nnUNet_preprocessed") / dataset_name(name_or_id)
    return _existing(
        folder, f"run: nnUNetv2_plan_and_preprocess -d {dataset_id(folder.name)} --verify_dataset_integrity"
    )


def _existing(folder: Path, fix: str) -> Path:
    if not folder.is_dir():
        raise UsageError(f"{folder} does not exist; {fix}")
    return folder


def dataset_id(name: str) -> int:
    """``"Dataset115_COVID"`` -> ``115``."""
    return int(name[len("Dataset") : len("Dataset") + 3])


def relations(dataset_json: dict[str, Any]) -> dict[str, Any]:
    """The ``"nnunet_ext"`` block of a data set, e.g. ``{"xray": [700]}``; empty when there is none."""
    return dict(dataset_json.get(RELATIONS_KEY, {}))


def write_relation(name_or_id: str | int, kind: str, value: Any) -> list[Path]:
    """Set ``dataset.json["nnunet_ext"][kind] = value`` in the raw and the preprocessed folder of a data set.

    nnU-Net trains from the preprocessed copy and refreshes it from the raw one, so both must say the same.

    Returns: the files written (those of the two that exist).

    Raises:
        UsageError: neither exists.
    """
    name = dataset_name(name_or_id)
    candidates = [
        Path(os.environ[variable]) / name / "dataset.json"
        for variable in ("nnUNet_raw", "nnUNet_preprocessed")
        if os.environ.get(variable)
    ]
    files = [file for file in candidates if file.is_file()]
    if not files:
        raise UsageError(f"{name} has no dataset.json in nnUNet_raw or nnUNet_preprocessed")
    for file in files:
        content = load_json(file)
        content[RELATIONS_KEY] = {**relations(content), kind: value}
        save_json(content, file)
    return files
