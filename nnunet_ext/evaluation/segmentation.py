"""Segmentations on disk: where a file lies in space, what its values mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json

NATURAL_IMAGE_ENDINGS = (".png", ".bmp", ".jpg", ".jpeg")
FILE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".tif", ".tiff", *NATURAL_IMAGE_ENDINGS)
GEOMETRY_TOLERANCE = 1e-3
"""Largest difference (mm, or cosine) between two headers that counts as the same grid."""
LARGEST_LABEL = 32767


@dataclass(frozen=True)
class Classes:
    """What the values of a segmentation mean, as nnU-Net's ``dataset.json`` says it.

    Attributes:
        values: name of a foreground class -> its label value, or the values that make it a region.
        known: every value that a segmentation may hold, background included.
        ignore: the value of voxels that are to count nowhere, or None.
        file_ending: of the segmentation files, with the dot.
    """

    values: dict[str, int | tuple[int, ...]]
    known: frozenset[int]
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
        named = {name: _label_or_region(value) for name, value in labels.items()}
        foreground = {name: value for name, value in named.items() if set(_as_tuple(value)) != {0}}
        if not foreground:
            raise UsageError(f"{path} has no label but background")
        known = {0, *(value for group in foreground.values() for value in _as_tuple(group))}
        known |= set() if ignore is None else {int(ignore)}
        return cls(foreground, frozenset(known), None if ignore is None else int(ignore), content["file_ending"])

    @classmethod
    def from_arguments(cls, labels: Sequence[str], regions: Sequence[str], file_ending: str) -> Classes:
        """Classes of a data set without ``dataset.json``: `labels` are values, named by their number; see `chosen`."""
        values: dict[str, int | tuple[int, ...]] = {text: _number(text, "--labels") for text in labels}
        values |= dict(_region(text) for text in regions)
        known = {0, *(value for group in values.values() for value in _as_tuple(group))}
        return cls(values, frozenset(known), None, file_ending)

    def chosen(self, labels: Sequence[str], regions: Sequence[str]) -> Classes:
        """These classes only: `labels` by name or value, `regions` as ``name=1,2,3``; all classes if both are empty.

        Raises:
            UsageError: a label or a value that the data set does not have, or a region in another form.
        """
        if not labels and not regions:
            return self
        by_text = {str(value): name for name, value in self.values.items()} | {name: name for name in self.values}
        if unknown := [label for label in labels if label not in by_text]:
            raise UsageError(f"--labels {' '.join(unknown)}: dataset.json has {', '.join(self.values)}")
        values = {by_text[label]: self.values[by_text[label]] for label in labels}
        for name, members in map(_region, regions):
            if unlisted := sorted(set(members) - self.known):
                raise UsageError(f"--regions {name}: dataset.json has no value {', '.join(map(str, unlisted))}")
            values[name] = members
        return replace(self, values=values)


def _label_or_region(value: Any) -> int | tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, list | tuple) else int(value)


def _as_tuple(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _number(text: str, flag: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise UsageError(f"{flag} {text}: without a dataset.json (--dataset-json) this must be a value above 0")
    return int(text)


def _region(text: str) -> tuple[str, tuple[int, ...]]:
    """``core=2,3`` -> ``("core", (2, 3))``."""
    name, _, values = text.partition("=")
    if not name or not values.replace(",", "").isdigit() or not all(values.split(",")):
        raise UsageError(f"--regions {text} must look like core=2,3: a name and the label values that make the region")
    return name, tuple(int(value) for value in values.split(","))


def find_file_ending(folder: Path) -> str:
    """The ending that all segmentations of `folder` share.

    Raises:
        UsageError: there are none, or several endings.
    """
    names = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
    found = [ending for ending in FILE_ENDINGS if any(name.lower().endswith(ending) for name in names)]
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


def read_labels(path: Path, classes: Classes) -> NDArray[np.integer]:
    """Label values in the integer type of the file (int16 if it holds fractions' type), axes (z, y, x) or (y, x).

    Raises:
        UsageError: unreadable, or a value that `classes` does not know.
    """
    try:
        stored = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    except RuntimeError as error:
        raise UsageError(f"{path} cannot be read as an image ({_last_line(error)})") from None
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
        raise UsageError(f"{path} holds values {unknown}; known are only {known} (dataset.json, --labels, --regions)")
    return labels


def _values(labels: NDArray[np.integer]) -> set[int]:
    """The values that occur. Counting, since sorting a volume costs more than all overlap metrics; slice by slice,
    since counting needs eight bytes per voxel."""
    return {int(value) for part in labels for value in np.flatnonzero(np.bincount(part.ravel()))}


def _last_line(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1].strip()
