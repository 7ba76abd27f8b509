"""The input files of prediction, checked before any work."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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
        if missing and [expected[0]] == list(files) and _num_channels(expected[0], read_images) == len(channels):
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


def _num_channels(file: str, read_images: ReadImages) -> int:
    try:
        return len(read_images([file])[0])
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
