"""The input files of prediction, checked before any work."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_ext.evaluation.segmentation import Geometry, read_geometry
from nnunet_ext.utilities.errors import UsageError

ReadImages = Callable[[Sequence[str]], tuple[Any, dict[str, Any]]]
"""`read_images` of an nnU-Net reader: files -> (channels, ...) array and properties."""


def cases_in_folder(folder: str | os.PathLike[str], file_ending: str) -> list[list[str]]:
    """The channel files ``CASE_0000.nii.gz, CASE_0001.nii.gz, ...`` of each case, cases and channels sorted.

    Raises:
        UsageError: no such folder, no case in it, or a file of this ending without a channel number.
    """
    if not Path(folder).is_dir():
        raise UsageError(f"input folder {folder} does not exist")
    files = sorted(file for file in Path(folder).iterdir() if file.name.endswith(file_ending) and file.name[0] != ".")
    if not files:
        raise UsageError(
            f"input folder {folder} has no *{file_ending} file, the ending that the model was trained with"
        )
    cases: dict[str, list[str]] = {}
    unnumbered = []
    for file in files:
        match = re.fullmatch(r"(.+)_\d{4}", file.name.removesuffix(file_ending))
        if match is None:
            unnumbered.append(file.name)
        else:
            cases.setdefault(match[1], []).append(str(file))
    if unnumbered:
        raise UsageError(
            f"{folder}: {', '.join(unnumbered)} without channel number; name the files CASE_0000{file_ending}"
            f" (channel 0), CASE_0001{file_ending} (channel 1), ..."
        )
    return [cases[name] for name in sorted(cases)]


def check_numbering(cases: Sequence[Sequence[str]], dataset_json: dict[str, Any], read_images: ReadImages) -> None:
    """Each case has the files ``_0000, _0001, ...`` of all channels of the data set, or ``_0000`` alone with all
    channels in it (RGB images, 4D volumes).

    Raises:
        UsageError: names every case and the files that it lacks or has too many.
    """
    channels, ending = dataset_json.get("channel_names", dataset_json.get("modality", {})), dataset_json["file_ending"]
    problems = []
    for files in cases:
        case = files[0].removesuffix(ending)[: -len("_0000")]
        expected = [f"{case}_{channel:04d}{ending}" for channel in range(len(channels))]
        missing = [file for file in expected if file not in files]
        surplus = [file for file in files if file not in expected]
        if missing and [expected[0]] == list(files) and holds_all_channels(expected[0], len(channels), read_images):
            continue
        for verb, wrong in (("lacks", missing), ("has no channel for", surplus)):
            if wrong:
                problems.append(f"case {Path(case).name} {verb} {', '.join(Path(file).name for file in wrong)}")
    if problems:
        listed = ", ".join(f"{int(number):04d} {name}" for number, name in channels.items())
        raise UsageError(f"{'; '.join(problems)} (channels of this model: {listed})")


def check_existence(cases: Sequence[Sequence[str]]) -> None:
    """Raises UsageError that names every file that does not exist."""
    absent = [file for files in cases for file in files if not Path(file).is_file()]
    if absent:
        raise UsageError(f"input files do not exist: {', '.join(absent)}")


def check_sizes(cases: Iterable[Sequence[str]]) -> None:
    """The files of a case have one shape and spacing, as the host demands, by their headers; a file whose header cannot
    be read is left to the host.

    Raises:
        UsageError: names every file of such cases, with its size (z, y, x) and spacing.
    """
    problems = []
    for files in cases:
        found = {file: geometry for file in files if (geometry := _geometry(file)) is not None}
        if any(not _fit(geometry, next(iter(found.values()))) for geometry in found.values()):
            problems.append(", ".join(f"{file} {_spelled(geometry)}" for file, geometry in found.items()))
    if problems:
        raise UsageError(
            "the images of a case must have one size and spacing; resample them to one grid, or leave out those that do"
            f" not fit: {'; '.join(problems)}"
        )


def holds_all_channels(file: str, num_channels: int, read_images: ReadImages) -> bool:
    """Whether one file holds every channel (RGB image, 4D volume); a file of one channel is not read for that."""
    return num_channels == (1 if _geometry(file) is not None else _num_channels(file, read_images))


def _geometry(file: str) -> Geometry | None:
    """Of a file of one channel; None if it has more or is unreadable."""
    try:
        return read_geometry(Path(file))
    except UsageError:
        return None


def _fit(geometry: Geometry, other: Geometry) -> bool:
    return geometry.shape == other.shape and np.allclose(geometry.spacing, other.spacing)


def _spelled(geometry: Geometry) -> str:
    size, spacing = (" x ".join(f"{value:.6g}" for value in values) for values in (geometry.shape, geometry.spacing))
    return f"({size} voxels of {spacing} mm)"


def _num_channels(file: str, read_images: ReadImages) -> int:
    try:
        return len(read_images([file])[0])
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
