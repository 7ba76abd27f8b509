"""Segmentations on disk: where a file lies in space, and its values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import tifffile
from numpy.typing import NDArray
from PIL import Image

from nnunet_ext.evaluation.classes import Classes
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json

NATURAL_IMAGE_ENDINGS = (".png", ".bmp", ".jpg", ".jpeg")
TIFF_ENDINGS = (".tif", ".tiff")
FILE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", *TIFF_ENDINGS, *NATURAL_IMAGE_ENDINGS)
GREY_MODES = ("1", "L", "I", "I;16", "F")
GEOMETRY_TOLERANCE = 1e-3
"""Largest difference (mm, or cosine) between two headers that counts as the same grid."""
LARGEST_LABEL = 32767


def find_file_ending(folder: Path) -> str:
    """The ending that all segmentations of `folder` share.

    Raises:
        UsageError: there are none, or several endings.
    """
    names = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
    found = [ending for ending in FILE_ENDINGS if any(name.endswith(ending) for name in names)]
    if len(found) != 1:
        raise UsageError(
            f"{folder} has segmentations of {len(found)} endings ({', '.join(found) or 'none'});"
            " name a dataset.json that says which: --dataset-json FILE"
        )
    return found[0]


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a file lie; shape, spacing and origin (mm) in the axis order of its array (z, y, x),
    direction as in the header."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    def differences(self, other: Geometry) -> list[str]:
        """What differs, in words: ``["shape (3, 4, 5) and (3, 4, 6)"]``; empty for the same grid."""
        if self.shape != other.shape:
            return [f"shape {self.shape} and {other.shape}"]
        return [
            f"{name} {_rounded(mine)} and {_rounded(theirs)}"
            for name in ("spacing", "origin", "direction")
            if not np.allclose(mine := getattr(self, name), theirs := getattr(other, name), 0, GEOMETRY_TOLERANCE)
        ]


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in values)


def read_geometry(path: Path) -> Geometry:
    """Geometry from the header alone. PNG, BMP and JPG have spacing 1; TIFF takes that of nnU-Net's JSON beside it.

    Raises:
        UsageError: not an image of one channel and two or three axes.
    """
    ending = path.suffix.lower()
    if ending in NATURAL_IMAGE_ENDINGS:
        with _readable(path), Image.open(path) as picture:
            mode, (columns, rows) = picture.mode, picture.size
        if mode not in GREY_MODES:
            raise UsageError(f"{path} is in colour (mode {mode}); a segmentation has one channel")
        return _plain_geometry((rows, columns), (1.0, 1.0))
    if ending in TIFF_ENDINGS:
        with _readable(path), tifffile.TiffFile(path) as tiff:
            shape, axes = tiff.series[0].shape, tiff.series[0].axes
        if len(shape) not in (2, 3) or axes.endswith("S"):
            raise UsageError(f"{path} has the axes {axes} {shape}; a segmentation has one channel and 2 or 3 axes")
        return _plain_geometry(shape, _companion_spacing(path, len(shape)))
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    with _readable(path):
        reader.ReadImageInformation()
    size = reader.GetSize()
    if reader.GetNumberOfComponents() != 1 or len(size) not in (2, 3):
        raise UsageError(
            f"{path} has {reader.GetNumberOfComponents()} channels and {len(size)} axes; a segmentation has one channel"
            " and 2 or 3 axes"
        )
    return Geometry(size[::-1], reader.GetSpacing()[::-1], reader.GetOrigin()[::-1], reader.GetDirection())


def _plain_geometry(shape: tuple[int, ...], spacing: tuple[float, ...]) -> Geometry:
    """Of a file that knows no position."""
    return Geometry(shape, spacing, (0.0,) * len(shape), tuple(np.eye(len(shape)).ravel()))


def _companion_spacing(path: Path, num_axes: int) -> tuple[float, ...]:
    """Spacing in the JSON that nnU-Net keeps beside a TIFF; ones without it."""
    companion = path.with_suffix(".json")
    if not companion.is_file():
        return (1.0,) * num_axes
    content = load_json(companion)
    spacing = content.get("spacing") if isinstance(content, dict) else None
    if not isinstance(spacing, list) or len(spacing) != num_axes or not all(s > 0 for s in spacing):
        raise UsageError(f'{companion} must hold {{"spacing": [...]}} with {num_axes} positive numbers (mm)')
    return tuple(spacing)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raises UsageError for whatever the image libraries raise about a file."""
    try:
        yield
    except (RuntimeError, OSError, ValueError, IndexError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"{path} cannot be read as an image ({lines[-1].strip()})") from None


def _read_array(path: Path) -> NDArray[Any]:
    """Values of an image; a mask of one bit per pixel holds 0 and 1, as in nnU-Net."""
    ending = path.suffix.lower()
    with _readable(path):
        if ending in NATURAL_IMAGE_ENDINGS:
            with Image.open(path) as picture:
                values = np.asarray(picture)
            return values.astype(np.uint8) if values.dtype == bool else values
        if ending in TIFF_ENDINGS:
            return np.asarray(tifffile.imread(path))
        found: NDArray[Any] = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
        return found


def read_labels(path: Path, classes: Classes) -> NDArray[np.integer]:
    """Label values in the integer type of the file (int16 if it holds fractions' type), axes (z, y, x) or (y, x).

    Raises:
        UsageError: unreadable, or a value that `classes` does not know.
    """
    stored = _read_array(path)
    labels: NDArray[np.integer] = stored
    if stored.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # nan has no integer; it is reported below
            labels = stored.astype(np.int16)
    if (labels is stored or np.array_equal(labels, stored)) and labels.min() >= 0 and labels.max() <= LARGEST_LABEL:
        unknown = ", ".join(str(value) for value in sorted(_values(labels) - classes.known)[:10])
    else:
        unknown = f"that are no labels (negative, fractional or above {LARGEST_LABEL})"
    if unknown:
        known = ", ".join(map(str, sorted(classes.known)))
        raise UsageError(
            f"{path} holds values {unknown}; known are only {known} (by dataset.json; without one,"
            " --labels and --regions must name every value)"
        )
    return labels


def _values(labels: NDArray[np.integer]) -> set[int]:
    """The values that occur. Counting, since sorting a volume costs more than all overlap metrics; slice by slice,
    since counting needs eight bytes per voxel."""
    return {int(value) for part in labels for value in np.flatnonzero(np.bincount(part.ravel()))}
