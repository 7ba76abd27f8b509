"""CT data sets for nnU-Net: what is checked in a case and what is written."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from SimpleITK import (
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


def process_ct(case: Case, folder: Path, *, num_labels: int, rescale: Rescale | None = None) -> Entry:
    """Check one CT and its label map, and write both below `folder` in nnU-Net's layout.

    The image keeps data type and geometry (a ``.nii.gz`` is linked, not rewritten) unless `rescale` changes its values.
    The label map becomes uint8 on exactly the image's geometry; it is never resampled.

    Args:
        case: its image and, if there is one, its label map.
        folder: the data set under construction.
        num_labels: labels are 0 .. num_labels - 1.
        rescale: brings the intensities to HU, for sources that need it.

    Returns: shape (voxels, z y x), spacing (mm, z y x), voxels per label, header fixes, intensity, files.

    Raises:
        BadCaseError: unreadable, NaN or infinite, empty, shape or geometry mismatch, label out of range.
    """
    image = _read(case.image, "image")
    values = GetArrayViewFromImage(image)
    _check_not_empty(values)
    entry: Entry = {"shape": list(values.shape), "spacing": list(image.GetSpacing()[::-1])}
    rescaled = None
    if rescale is not None:
        rescaled, entry["intensity"] = rescale(case.name, values)
    label = None
    if case.label is not None:
        label_image = _read(case.label, "label")
        fixes = _compare_geometry(image, label_image)
        label = _checked_label(GetArrayViewFromImage(label_image), num_labels)
        entry["label_voxels"] = {str(i): int(np.count_nonzero(label == i)) for i in range(num_labels)}
        if fixes:
            entry["header_copied_from_image"] = fixes

    part = "Ts" if case.split == "test" else "Tr"
    image_file = folder / f"images{part}" / f"{case.name}_0000{FILE_ENDING}"
    if rescaled is None and case.image.name.endswith(FILE_ENDING):
        place(case.image, image_file)
    else:
        _write(image if rescaled is None else _like(image, rescaled), image_file)
    entry["files"] = [image_file.relative_to(folder).as_posix()]
    if label is not None:
        label_file = folder / f"labels{part}" / f"{case.name}{FILE_ENDING}"
        _write(_like(image, label), label_file)
        entry["files"].append(label_file.relative_to(folder).as_posix())
    return entry


def finish_ct(folder: Path, conversion: Conversion, entries: dict[str, Entry]) -> None:
    """Write dataset.json (one CT channel) and splits_final.json (folds of the training cases)."""
    training = {name: entry["patient"] for name, entry in entries.items() if entry["split"] != "test"}
    assert conversion.folds is not None
    save_json(conversion.folds(training), folder / "splits_final.json")
    content = {"channel_names": {"0": "CT"}, "numTraining": len(training), "file_ending": FILE_ENDING}
    save_json(conversion.dataset_json | content, folder / "dataset.json")


def _read(path: Path, what: str) -> Image:
    """A three-dimensional scalar image.

    Raises:
        BadCaseError: truncated or otherwise unreadable, not three-dimensional, NaN or infinite voxels.
    """
    try:
        if path.name.endswith(".gz"):
            _check_gzip(path)  # ITK fills what a truncated file lacks with zeros and reports nothing
        image = ReadImage(str(path))
        non_finite = _count_non_finite(path) if image.GetPixelID() in (sitkFloat32, sitkFloat64) else 0
    except (RuntimeError, OSError, EOFError, zlib.error, ImageFileError) as error:
        raise BadCaseError(f"{what} {path.name} is unreadable ({str(error).strip().splitlines()[-1]})") from None
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        channels = image.GetNumberOfComponentsPerPixel()
        raise BadCaseError(
            f"{what} {path.name} has size {image.GetSize()} and {channels} channels, not 3 dimensions and 1"
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


def _compare_geometry(image: Image, label: Image) -> list[str]:
    """The header fields in which the label differs by less than a tenth of a voxel: to be copied from the image.

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
        if difference > tolerance:
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
