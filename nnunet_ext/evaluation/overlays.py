"""Slices of an image with the outlines of reference and prediction, for the report."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from PIL import Image

from nnunet_ext.evaluation.segmentation import NATURAL_IMAGE_ENDINGS
from nnunet_ext.utilities.errors import UsageError

Volume = NDArray[Any]
PLANES = (("axial", "from inferior"), ("coronal", "from anterior"), ("sagittal", "from right"))
"""Name, and where slice 1 lies, for the axes z, y, x of a volume in LPS orientation."""

LUNG_WINDOW, SOFT_TISSUE_WINDOW = (-1350.0, 150.0), (-160.0, 240.0)
MAX_PIXELS = 512
"""Longest side of an embedded picture; larger slices are thinned out."""


@dataclass(frozen=True)
class Plane:
    """One slice: an 8-bit PNG as data URI, stretched over width x height (mm), and outlines in voxels of the slice."""

    name: str
    caption: str
    width: float
    height: float
    columns: int
    rows: int
    picture: str
    reference: str
    prediction: str


@dataclass(frozen=True)
class Overlay:
    """The planes of one case and the grey values (low, high) that are black and white."""

    planes: list[Plane]
    window: tuple[float, float]


def draw_case(image: Path, reference: Path, prediction: Path, ignore_label: int | None, is_ct: bool) -> Overlay:
    """Axial, coronal and sagittal slices (or the one slice of a 2D image) where the reference is largest.

    An empty reference gives way to the prediction, and if that is empty too the middle is shown.

    Raises:
        UsageError: a file is absent, unreadable or not on the image's grid.
    """
    volumes = [_read(path) for path in (image, reference, prediction)]
    grey, labels, predicted = (SimpleITK.GetArrayFromImage(volume) for volume in volumes)
    if grey.ndim > labels.ndim:
        grey = grey.mean(axis=-1)  # colour channels
    if not grey.shape == labels.shape == predicted.shape:
        raise UsageError(f"image {grey.shape}, reference {labels.shape}, prediction {predicted.shape} differ in shape")
    if ignore_label is not None:
        labels = np.where(labels == ignore_label, 0, labels)
    spacing = (1.0, 1.0) if image.suffix.lower() in NATURAL_IMAGE_ENDINGS else volumes[0].GetSpacing()[::-1]
    window = grey_window(grey, labels, predicted, is_ct)
    if grey.ndim == 2:
        return Overlay([draw_plane("image", "", grey, labels, predicted, spacing, window)], window)
    planes = []
    for axis, (name, origin) in enumerate(PLANES):
        index = largest_slice(labels if labels.any() else predicted, axis)
        head_up = 1 if axis == 0 else -1
        slices = [volume.take(index, axis)[::head_up] for volume in (grey, labels, predicted)]
        in_plane = tuple(s for i, s in enumerate(spacing) if i != axis)
        caption = f"slice {index + 1} of {grey.shape[axis]} {origin}"
        planes.append(draw_plane(name, caption, slices[0], slices[1], slices[2], in_plane, window))
    return Overlay(planes, window)


def _read(path: Path) -> Any:
    """A file as SimpleITK image; volumes in LPS orientation, so that the axes are z, y, x of the patient."""
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError:
        raise UsageError(f"{path} cannot be read as an image") from None
    return SimpleITK.DICOMOrient(image, "LPS") if image.GetDimension() == 3 else image


def largest_slice(mask: Volume, axis: int) -> int:
    """Index along `axis` of the slice with the most foreground; the middle one of an empty mask."""
    areas = np.count_nonzero(mask, axis=tuple(i for i in range(mask.ndim) if i != axis))
    return int(areas.argmax()) if areas.any() else mask.shape[axis] // 2


def grey_window(grey: Volume, labels: Volume, predicted: Volume, is_ct: bool) -> tuple[float, float]:
    """Grey values that are to be black and white.

    CT in HU: the lung window where the lesion's surroundings (its bounding box) are mostly air, else the soft-tissue
    window. Anything else: the 0.5th and 99.5th percentile.
    """
    if is_ct and grey.min() < -200:
        box = np.argwhere((labels > 0) | (predicted > 0))
        region = grey
        if len(box):
            region = grey[tuple(slice(a, b + 1) for a, b in zip(box.min(0), box.max(0), strict=True))]
        return LUNG_WINDOW if np.median(region) < -200 else SOFT_TISSUE_WINDOW
    low, high = np.percentile(grey, (0.5, 99.5))
    return float(low), float(max(high, low + 1e-6))


def draw_plane(
    name: str,
    caption: str,
    grey: Volume,
    labels: Volume,
    predicted: Volume,
    spacing: tuple[float, ...],
    window: tuple[float, float],
) -> Plane:
    """A slice (rows, columns) with `spacing` in mm of rows and columns."""
    low, high = window
    scaled = np.clip((grey.astype(np.float32) - low) / (high - low), 0, 1)
    step = -(-max(grey.shape) // MAX_PIXELS)
    picture = Image.fromarray((scaled[::step, ::step] * 255).round().astype(np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    rows, columns = grey.shape
    return Plane(
        name,
        caption,
        round(columns * spacing[1], 3),
        round(rows * spacing[0], 3),
        columns,
        rows,
        "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"),
        outline(labels),
        outline(predicted),
    )


def outline(labels: Volume) -> str:
    """SVG path along the pixel edges (column, row from 0 at the corner) where neighbouring labels differ."""
    return _runs(labels, "h") + _runs(labels.T, "v")


def _runs(labels: Volume, command: str) -> str:
    """Edges between consecutive rows, joined to runs along the columns; ``v`` says that the array is transposed."""
    padded = np.pad(labels.astype(np.int32), 1)
    edges = np.diff(padded, axis=0)[:, 1:-1] != 0
    changes = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, ends = np.argwhere(changes == 1), np.argwhere(changes == -1)
    return "".join(
        f"M{start} {row}h{end - start}" if command == "h" else f"M{row} {start}v{end - start}"
        for (row, start), (_, end) in zip(starts.tolist(), ends.tolist(), strict=True)
    )
