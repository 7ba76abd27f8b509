"""CT and other volumes for nnU-Net: what is checked in a case and what is written."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from SimpleITK import (
    DICOMOrient,
    DICOMOrientImageFilter,
    GetArrayViewFromImage,
    GetImageFromArray,
    Image,
    ReadImage,
    WriteImage,
    sitkFloat32,
    sitkFloat64,
)

from nnunet_ext.dataset_conversion.base import BadCaseError, Case, Conversion, Entry, place
from nnunet_ext.utilities.files import save_json

FILE_ENDING = ".nii.gz"
ROUNDING = 1e-5
"""Headers of NIfTI files are float32: differences below this are none."""

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
) -> Entry:
    """Check one volume and its label map, and write both below `folder` in nnU-Net's layout.

    The image keeps data type and geometry (a ``.nii.gz`` of one channel is linked, not rewritten) unless `rescale`
    changes its values. The label map becomes uint8 on exactly the image's geometry; it is never resampled.

    Args:
        case: its image and, if there is one, its label map.
        folder: the data set under construction.
        num_labels: labels are 0 .. num_labels - 1.
        num_channels: above 1 the image has four dimensions, the last of which is the channel.
        rescale: brings the intensities to HU, for CT sources that need it.
        label_header: what happens where the headers of image and label map differ.

    Returns: shape (voxels, z y x), spacing (mm, z y x), voxels per label, header fixes, intensity, files.

    Raises:
        BadCaseError: unreadable, NaN or infinite, empty, shape or geometry mismatch, label out of range.
    """
    volume = read_volume(case, num_labels=num_labels, num_channels=num_channels, label_header=label_header)
    image, entry = volume.channels[0], volume.entry
    rescaled = None
    if rescale is not None:
        rescaled, entry["intensity"] = rescale(case.name, GetArrayViewFromImage(image))

    part = "Ts" if case.split == "test" else "Tr"
    image_files = [
        folder / f"images{part}" / f"{case.name}_{index:04d}{FILE_ENDING}" for index in range(len(volume.channels))
    ]
    if rescaled is not None:
        _write(_like(image, rescaled), image_files[0])
    elif num_channels == 1 and case.image.name.endswith(FILE_ENDING):
        place(case.image, image_files[0])
    else:
        for channel, image_file in zip(volume.channels, image_files, strict=True):
            _write(channel, image_file)
    entry["files"] = [image_file.relative_to(folder).as_posix() for image_file in image_files]
    if volume.label is not None:
        label_file = folder / f"labels{part}" / f"{case.name}{FILE_ENDING}"
        _write(_like(image, volume.label), label_file)
        entry["files"].append(label_file.relative_to(folder).as_posix())
    return entry


def read_volume(case: Case, *, num_labels: int, num_channels: int = 1, label_header: LabelHeader = "check") -> Volume:
    """Read and check one case; arguments and errors are those of `process_ct`."""
    channels = _read_channels(case.image, num_channels)
    image = channels[0]
    values = GetArrayViewFromImage(image)
    entry: Entry = {"shape": list(values.shape), "spacing": list(image.GetSpacing()[::-1])}
    if case.label is None:
        return Volume(channels, None, entry)
    label_image = _read(case.label, "label")
    if label_header == "reorient":
        orientation = _orientation(image)
        if _orientation(label_image) != orientation:
            entry["label_reoriented"] = f"{_orientation(label_image)} to {orientation}"
            label_image = DICOMOrient(label_image, orientation)
    fixes = _compare_geometry(image, label_image, ignore=label_header == "ignore")
    label = _checked_label(GetArrayViewFromImage(label_image), num_labels)
    entry["label_voxels"] = {str(i): int(np.count_nonzero(label == i)) for i in range(num_labels)}
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


def _read_channels(path: Path, number: int) -> list[Image]:
    """The channels of an image, three-dimensional each; BadCaseError if their number is another or one is empty."""
    if number == 1:
        channels = [_read(path, "image")]
    else:
        image = _read(path, "image", dimensions=4)
        if image.GetSize()[3] != number:
            raise BadCaseError(f"image {path.name} has {image.GetSize()[3]} channels, not {number}")
        channels = [image[:, :, :, index] for index in range(number)]
    for channel in channels:
        _check_not_empty(GetArrayViewFromImage(channel))
    return channels


def _read(path: Path, what: str, dimensions: int = 3) -> Image:
    """A scalar image.

    Raises:
        BadCaseError: truncated or otherwise unreadable, other dimensions, NaN or infinite voxels.
    """
    try:
        if path.name.endswith(".gz"):
            _check_gzip(path)  # ITK fills what a truncated file lacks with zeros and reports nothing
        image = ReadImage(str(path))
        non_finite = _count_non_finite(path) if image.GetPixelID() in (sitkFloat32, sitkFloat64) else 0
    except (RuntimeError, OSError, EOFError, zlib.error, ImageFileError) as error:
        raise BadCaseError(f"{what} {path.name} is unreadable ({str(error).strip().splitlines()[-1]})") from None
    if image.GetDimension() != dimensions or image.GetNumberOfComponentsPerPixel() != 1:
        channels = image.GetNumberOfComponentsPerPixel()
        raise BadCaseError(
            f"{what} {path.name} has size {image.GetSize()} and {channels} values per voxel,"
            f" not {dimensions} dimensions and 1"
        )
    if non_finite:
        raise BadCaseError(f"{what} {path.name} holds {non_finite} voxels that are NaN or infinite")
    return image


def _check_gzip(path: Path) -> None:
    with gzip.open(path) as file:
        while file.read(1 << 22):
            pass


def _count_non_finite(path: Path) -> int:
    """ITK reads NaN and infinity in NIfTI files as 0, so the file is read a second time without it."""
    image = nibabel.load(path)
    assert isinstance(image, nibabel.Nifti1Pair)
    return int(np.count_nonzero(~np.isfinite(np.asanyarray(image.dataobj))))


def _check_not_empty(values: npt.NDArray[Any]) -> None:
    if values.min() == values.max():
        raise BadCaseError(f"image is empty: every voxel is {values.min()}")


def _orientation(image: Image) -> str:
    """Where the axes point, such as ``LPS``."""
    return str(DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection()))


def _compare_geometry(image: Image, label: Image, ignore: bool = False) -> list[str]:
    """The header fields in which the label differs by less than a tenth of a voxel: to be copied from the image.

    With `ignore` a difference may be of any size.

    Raises:
        BadCaseError: another shape, or a difference that moves a voxel by more than that.
    """
    if image.GetSize() != label.GetSize():
        raise BadCaseError(f"shape mismatch: image {image.GetSize()}, label {label.GetSize()} (x, y, z)")
    voxel = min(image.GetSpacing())
    tolerances = {
        # A relative error of the spacing or of the direction adds up along the longest axis.
        "Spacing": 0.1 * voxel / max(image.GetSize()),
        "Origin": 0.1 * voxel,
        "Direction": 0.1 / max(image.GetSize()),
    }
    fixes = []
    for name, tolerance in tolerances.items():
        ours, theirs = (np.array(getattr(x, f"Get{name}")()) for x in (image, label))
        difference = np.abs(ours - theirs).max()
        if difference > tolerance and not ignore:
            raise BadCaseError(f"{name.lower()} mismatch: image {_show(ours)}, label {_show(theirs)}")
        if difference > ROUNDING:
            fixes.append(name.lower())
    return fixes


def _show(numbers: npt.NDArray[Any]) -> str:
    return "(" + ", ".join(f"{number:.6g}" for number in numbers) + ")"


def _checked_label(values: npt.NDArray[Any], num_labels: int) -> npt.NDArray[np.uint8]:
    """The label map as uint8; BadCaseError if a voxel is none of 0 .. num_labels - 1 (fractions included)."""
    allowed = (values >= 0) & (values < num_labels)
    if values.dtype.kind == "f":
        allowed &= values == np.floor(values)
    if not allowed.all():
        wrong = np.unique(values[~allowed])
        shown = ", ".join(f"{value:g}" for value in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
        raise BadCaseError(f"label out of range: {shown}; expected 0 to {num_labels - 1}")
    return values.astype(np.uint8)


def _like(image: Image, values: npt.NDArray[Any]) -> Image:
    result = GetImageFromArray(values)
    result.CopyInformation(image)
    return result


def _write(image: Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    WriteImage(image, str(path))
