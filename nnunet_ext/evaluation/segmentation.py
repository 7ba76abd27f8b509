"""Segmentations on disk: where a file lies in space, what its values mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json

NATURAL_IMAGE_ENDINGS = (".png", ".bmp", ".jpg", ".jpeg")
GEOMETRY_TOLERANCE = 1e-3
"""Largest difference (mm, or cosine) between two headers that counts as the same grid."""


@dataclass(frozen=True)
class Classes:
    """What the values of a segmentation mean, as nnU-Net's ``dataset.json`` says it.

    Attributes:
        values: name of a foreground class -> the label values that make it (several for a region).
        ignore: the value of voxels that are to count nowhere, or None.
        file_ending: of the segmentation files, with the dot.
    """

    values: dict[str, tuple[int, ...]]
    ignore: int | None
    file_ending: str

    @classmethod
    def from_dataset_json(cls, path: Path) -> Classes:
        """Foreground labels, or regions where the data set has them.

        Raises:
            UsageError: absent, not JSON, or without labels and file ending.
        """
        content: dict[str, Any] = load_json(path)
        for key in ("labels", "file_ending"):
            if key not in content:
                raise UsageError(f"{path} has no {key!r}; it must be a dataset.json of nnU-Net v2")
        labels = dict(content["labels"])
        ignore = labels.pop("ignore", None)
        named = {name: _as_tuple(value) for name, value in labels.items()}
        foreground = {name: values for name, values in named.items() if set(values) != {0}}
        if not foreground:
            raise UsageError(f"{path} has no label but background")
        return cls(foreground, None if ignore is None else int(ignore), content["file_ending"])

    @property
    def known_values(self) -> set[int]:
        """Every value that a segmentation may hold."""
        values = {value for group in self.values.values() for value in group}
        return values | {0} | (set() if self.ignore is None else {self.ignore})


def _as_tuple(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, list | tuple) else (int(value),)


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
        UsageError: not an image.
    """
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise UsageError(f"{path} cannot be read as an image ({_last_line(error)})") from None
    if reader.GetNumberOfComponents() != 1:
        raise UsageError(f"{path} has {reader.GetNumberOfComponents()} colour channels; a segmentation has one")
    spacing = reader.GetSpacing()[::-1]
    companion = path.with_suffix(".json")
    if path.suffix.lower() in NATURAL_IMAGE_ENDINGS:
        spacing = (1.0,) * len(spacing)
    elif path.suffix.lower() in (".tif", ".tiff"):
        spacing = tuple(load_json(companion)["spacing"]) if companion.is_file() else (1.0,) * len(spacing)
    return Geometry(reader.GetSize()[::-1], spacing, reader.GetOrigin()[::-1], reader.GetDirection())


def read_labels(path: Path, classes: Classes) -> NDArray[np.int16]:
    """Label values, axes (z, y, x) or (y, x).

    Raises:
        UsageError: unreadable, or a value that `classes` does not know.
    """
    try:
        stored = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    except RuntimeError as error:
        raise UsageError(f"{path} cannot be read as an image ({_last_line(error)})") from None
    with np.errstate(invalid="ignore"):  # nan has no integer; it is reported below
        labels: NDArray[np.int16] = stored.astype(np.int16)
    # bincount, not unique: sorting a volume costs more than all overlap metrics.
    if np.array_equal(labels, stored) and labels.min() >= 0:
        found = {int(value) for value in np.flatnonzero(np.bincount(labels.ravel()))}
        unknown = ", ".join(str(value) for value in sorted(found - classes.known_values)[:10])
    else:
        unknown = "that are no labels (negative, fractional or above 32767)"
    if unknown:
        raise UsageError(
            f"{path} holds values {unknown}; dataset.json knows only"
            f" {', '.join(map(str, sorted(classes.known_values)))}"
        )
    return labels


def _last_line(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1].strip()
