"""CT and other volumes for nnU-Net: what is checked in a case and what is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from SimpleITK import DICOMOrient, GetArrayViewFromImage, Image

from nnunet_ext.dataset_conversion.base import BadCaseError, Case, Conversion, Entry, case_name, place
from nnunet_ext.dataset_conversion.volumes import (
    check_not_empty,
    checked_label,
    compare_geometry,
    like,
    numbered,
    orientation,
    read_channel,
    read_scalar,
    voxels_per_label,
    write_volume,
)
from nnunet_ext.utilities.files import save_json

FILE_ENDING = ".nii.gz"

Rescale = Callable[[str, npt.NDArray[Any]], tuple[npt.NDArray[Any], str]]
"""(case name, voxel values) -> (values in HU, what was done); raises BadCaseError."""

LabelHeader = Literal["check", "reorient", "ignore"]
"""Headers of image and label map must agree; or may differ in the order and sense of the axes, and the label map's
voxels are then put in the image's order; or do not matter, because the voxels are known to be in the same order."""


@dataclass(frozen=True)
class Volume:
    """A checked case: its channels, its label map on exactly their grid, and what the manifest says so far."""

    channels: list[Image]
    label: npt.NDArray[np.uint8] | None
    entry: Entry


def process_ct(
    case: Case,
    folder: Path,
    *,
    num_labels: int,
    num_channels: int = 1,
    rescale: Rescale | None = None,
    label_header: LabelHeader = "check",
    decode: Mapping[int, int] | None = None,
) -> Entry:
    """Check one volume and its label map, and write both below `folder` in nnU-Net's layout.

    The image keeps data type and geometry (a ``.nii.gz`` of one channel is linked, not rewritten) unless `rescale`
    changes its values. The label map becomes uint8 on exactly the image's geometry; it is never resampled.

    Args:
        case: its image or, where each channel is a file, its images, and, if there is one, its label map.
        folder: the data set under construction.
        num_labels: labels are 0 .. num_labels - 1.
        num_channels: above 1 the image has four dimensions, the last of which is the channel.
        rescale: brings the intensities to HU, for CT sources of one channel that need it.
        label_header: what happens where the headers of image and label map differ.
        decode: value in the source's label map -> label, where the two are not the same.

    Returns: shape (voxels, z y x), spacing (mm, z y x), voxels per label, header fixes, intensity, files.

    Raises:
        BadCaseError: unreadable, NaN or infinite, empty, shape or geometry mismatch, label out of range.
    """
    volume = read_volume(
        case, num_labels=num_labels, num_channels=num_channels, label_header=label_header, decode=decode
    )
    entry = volume.entry
    channels = volume.channels
    if rescale is not None:
        rescaled, entry["intensity"] = rescale(case.name, GetArrayViewFromImage(channels[0]))
        channels = [like(channels[0], rescaled)]
    copied = set(entry.get("header_copied_from_first_channel", ()))
    part = "Ts" if case.split == "test" else "Tr"
    entry["files"] = []
    for index, channel in enumerate(channels):
        file = f"images{part}/{case.name}_{index:04d}{FILE_ENDING}"
        source = case.images[index] if num_channels == 1 else None
        if source is not None and rescale is None and source.name.endswith(FILE_ENDING) and source.name not in copied:
            place(source, folder / file)
        else:
            write_volume(channel, folder, file)
        entry["files"].append(file)
    if volume.label is not None:
        label_file = f"labels{part}/{case.name}{FILE_ENDING}"
        entry["files"].append(write_volume(like(channels[0], volume.label), folder, label_file))
    return entry


def read_volume(
    case: Case,
    *,
    num_labels: int,
    num_channels: int = 1,
    label_header: LabelHeader = "check",
    decode: Mapping[int, int] | None = None,
) -> Volume:
    """Read and check one case; arguments and errors are those of `process_ct`."""
    channels, fixed = _read_files(case) if num_channels == 1 else (_split_channels(case, num_channels), {})
    image = channels[0]
    shape = list(GetArrayViewFromImage(image).shape)
    entry: Entry = {"shape": shape, "spacing": list(image.GetSpacing()[::-1])}
    if fixed:
        entry["header_copied_from_first_channel"] = fixed
    if case.label is None:
        return Volume(channels, None, entry)
    label_image = read_scalar(case.label, "label")
    if label_header == "reorient" and orientation(label_image) != orientation(image):
        entry["label_reoriented"] = f"{orientation(label_image)} to {orientation(image)}"
        label_image = DICOMOrient(label_image, orientation(image))
    fixes = compare_geometry(image, label_image, ignore=label_header == "ignore")
    label = checked_label(GetArrayViewFromImage(label_image), numbered(num_labels) if decode is None else decode)
    entry["label_voxels"] = voxels_per_label(label, num_labels)
    if fixes:
        entry["header_copied_from_image"] = fixes
    return Volume(channels, label, entry)


def finish_ct(folder: Path, conversion: Conversion, entries: dict[str, Entry]) -> None:
    """Write dataset.json (one CT channel unless the conversion names others) and splits_final.json (training cases)."""
    training = {name: entry["patient"] for name, entry in entries.items() if entry["split"] != "test"}
    assert conversion.folds is not None
    save_json(conversion.folds(training), folder / "splits_final.json")
    content = {"numTraining": len(training), "file_ending": FILE_ENDING}
    save_json({"channel_names": {"0": "CT"}} | conversion.dataset_json | content, folder / "dataset.json")


def _read_files(case: Case) -> tuple[list[Image], dict[str, list[str]]]:
    """The channels of a case that has one file for each, and, file -> header fields, what was copied from the first.

    Raises:
        BadCaseError: one cannot be used, or is on another grid than the first.
    """
    channels = [read_channel(path) for path in case.images]
    first, fixed = channels[0], {}
    for path, channel in zip(case.images[1:], channels[1:], strict=True):
        fixes = compare_geometry(first, channel, (case_name(case.image), case_name(path)))
        if fixes:
            channel.CopyInformation(first)
            fixed[path.name] = fixes
    return channels, fixed


def _split_channels(case: Case, number: int) -> list[Image]:
    """The channels of a four-dimensional image; BadCaseError if their number is another or one is empty."""
    image = read_scalar(case.image, "image", dimensions=4)
    if image.GetSize()[3] != number:
        raise BadCaseError(f"image {case.image.name} has {image.GetSize()[3]} channels, not {number}")
    channels = [image[:, :, :, index] for index in range(number)]
    for channel in channels:
        check_not_empty(channel, "image")
    return channels
