"""Reading volumes, and the checks that decide whether a case is bad."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from SimpleITK import (
    DICOMOrientImageFilter,
    GetArrayViewFromImage,
    GetImageFromArray,
    Image,
    ReadImage,
    WriteImage,
    sitkFloat32,
    sitkFloat64,
)

from nnunet_ext.dataset_conversion.base import BadCaseError

ROUNDING = 1e-5
"""Headers of NIfTI files are float32: differences below this are none."""


def read_channel(path: Path) -> Image:
    """A three-dimensional image; BadCaseError if `read_scalar` says so, or if one value is everywhere."""
    image = read_scalar(path, "image")
    check_not_empty(image, f"image {path.name}")
    return image


def read_scalar(path: Path, what: str, dimensions: int = 3) -> Image:
    """An image of one value per voxel; `what` it is, such as "label", is for the messages.

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


def check_not_empty(image: Image, what: str) -> None:
    """BadCaseError, in which the image is called `what`, if all voxels have one value."""
    values = GetArrayViewFromImage(image)
    if values.min() == values.max():
        raise BadCaseError(f"{what} is empty: every voxel is {values.min()}")


def orientation(image: Image) -> str:
    """Where the axes point, such as ``LPS``."""
    return str(DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection()))


def compare_geometry(
    image: Image, other: Image, names: tuple[str, str] = ("image", "label"), ignore: bool = False
) -> list[str]:
    """The header fields in which `other` differs by less than a tenth of a voxel: to be copied from `image`.

    `names` are what the two are called in messages. With `ignore` a difference may be of any size.

    Raises:
        BadCaseError: another shape, or a difference that moves a voxel by more than that.
    """
    first, second = names
    if image.GetSize() != other.GetSize():
        raise BadCaseError(f"shape mismatch: {first} {image.GetSize()}, {second} {other.GetSize()} (x, y, z)")
    voxel = min(image.GetSpacing())
    tolerances = {
        # A relative error of the spacing or of the direction adds up along the longest axis.
        "Spacing": 0.1 * voxel / max(image.GetSize()),
        "Origin": 0.1 * voxel,
        "Direction": 0.1 / max(image.GetSize()),
    }
    fixes = []
    for name, tolerance in tolerances.items():
        ours, theirs = (np.array(getattr(x, f"Get{name}")()) for x in (image, other))
        difference = np.abs(ours - theirs).max()
        if difference > tolerance and not ignore:
            raise BadCaseError(f"{name.lower()} mismatch: {first} {_show(ours)}, {second} {_show(theirs)}")
        if difference > ROUNDING:
            fixes.append(name.lower())
    return fixes


def _show(numbers: npt.NDArray[Any]) -> str:
    return "(" + ", ".join(f"{number:.6g}" for number in numbers) + ")"


def numbered(num_labels: int) -> dict[int, int]:
    """The values 0 .. num_labels - 1, each of which is its own label."""
    return {label: label for label in range(num_labels)}


def checked_label(values: npt.NDArray[Any], labels: Mapping[int, int]) -> npt.NDArray[np.uint8]:
    """The label map as uint8, `labels` being value -> label; BadCaseError for any other value (fractions included)."""
    allowed = np.isin(values, list(labels))
    if not allowed.all():
        wrong = np.unique(values[~allowed])
        shown = ", ".join(f"{value:g}" for value in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
        known = sorted(labels)
        gapless = known == list(range(len(known)))
        expected = f"{known[0]} to {known[-1]}" if gapless else ", ".join(map(str, known))
        raise BadCaseError(f"label out of range: {shown}; expected {expected}")
    table = np.zeros(max(labels) + 1, np.uint8)
    table[list(labels)] = list(labels.values())
    return np.asarray(table[values.astype(np.uint8)], np.uint8)


def voxels_per_label(label: npt.NDArray[np.uint8], num_labels: int) -> dict[str, int]:
    """Label -> number of voxels, for the manifest."""
    return {str(i): int(np.count_nonzero(label == i)) for i in range(num_labels)}


def like(image: Image, values: npt.NDArray[Any]) -> Image:
    """`values` (z, y, x) with the geometry of `image`."""
    result = GetImageFromArray(values)
    result.CopyInformation(image)
    return result


def write_volume(image: Image, folder: Path, file: str) -> str:
    """Write an image to `file` below `folder`; returns `file`."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    WriteImage(image, str(path))
    return file
