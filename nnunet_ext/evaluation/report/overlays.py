"""Slices of an image with the outlines of the reference and of predictions, for the report."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation, find_objects

from nnunet_ext.evaluation.report.outlines import outline
from nnunet_ext.evaluation.segmentation import NATURAL_IMAGE_ENDINGS
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.pictures import data_uri

Volume = NDArray[Any]
PLANES = (("axial", "from inferior"), ("coronal", "from anterior"), ("sagittal", "from right"))
"""Name, and where slice 1 lies, for the axes z, y, x of a volume in LPS orientation."""

LUNG_WINDOW, SOFT_TISSUE_WINDOW = (-1350.0, 150.0), (-160.0, 240.0)
AIR, SURROUNDINGS, LUNG_SHARE = -400.0, 3, 0.3
"""Grey value (HU) below which a voxel is air or lung; voxels around the outlines that are looked at; how many of them
(as a share) must be air for the lung window."""
MAX_SLICES, MARGIN = 24, 2
"""Slices embedded per plane, and how many beyond the outlines' extent."""
MAX_PIXELS = 256
"""Longest side of an embedded picture; larger slices are averaged down."""
SMALL, JPEG_QUALITY = 64 * 64, 80
"""Pictures of at most so many pixels are PNG, and exact; larger ones are JPEG."""


@dataclass(frozen=True)
class Slice:
    """A picture as data URI, where it lies, and SVG outlines in voxels: of the reference, then of each prediction."""

    picture: str
    caption: str
    outlines: list[str]


@dataclass(frozen=True)
class Plane:
    """Slices of columns x rows voxels, each stretched over width x height (mm); `start` is the one to show first."""

    name: str
    width: float
    height: float
    columns: int
    rows: int
    slices: list[Slice]
    start: int


@dataclass(frozen=True)
class Overlay:
    """The planes of one case and the grey values (low, high) that are black and white; no window for colour."""

    planes: list[Plane]
    window: tuple[float, float] | None


def draw_case(
    image: Path, reference: Path, predictions: Sequence[Path | None], ignore_label: int | None, is_ct: bool
) -> Overlay:
    """Axial, coronal and sagittal slices, or the one slice of a 2D image (in colour if it has colours).

    Slices cover the extent of all outlines; the first shown is where the reference is largest. An empty reference
    gives way to the predictions, and if those are empty too the middle is shown. A prediction None is empty.

    Raises:
        UsageError: a file is absent, unreadable or not on the image's grid.
    """
    volume = _read(image)
    picture, labels = SimpleITK.GetArrayFromImage(volume), SimpleITK.GetArrayFromImage(_read(reference))
    predicted = [
        np.zeros_like(labels) if path is None else SimpleITK.GetArrayFromImage(_read(path)) for path in predictions
    ]
    shapes = [picture.shape[: labels.ndim], labels.shape, *(array.shape for array in predicted)]
    if len(set(shapes)) > 1:
        raise UsageError(f"image {shapes[0]}, reference {shapes[1]}, prediction {shapes[2:]} differ in shape")
    if ignore_label is not None:
        labels = np.where(labels == ignore_label, 0, labels)
    if image.suffix.lower() in NATURAL_IMAGE_ENDINGS:
        spacing: tuple[float, ...] = (1.0,) * labels.ndim
    else:
        spacing = volume.GetSpacing()[::-1]
    colour = picture.ndim > labels.ndim
    if colour and not (labels.ndim == 2 and picture.dtype == np.uint8 and picture.shape[-1] == 3):
        picture, colour = picture.mean(axis=-1), False
    window = None if colour else grey_window(picture, np.any([labels, *predicted], axis=0), is_ct)
    masks = [labels, *predicted]
    if labels.ndim == 2:
        return Overlay([_plane("image", spacing, [_slice(picture, masks, window, "")], labels.shape, 0)], window)
    return Overlay([_draw_axis(picture, masks, axis, spacing, window) for axis in range(3)], window)


def _read(path: Path) -> Any:
    """A file as SimpleITK image; volumes in LPS orientation, so that the axes are z, y, x of the patient."""
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError:
        raise UsageError(f"{path} cannot be read as an image") from None
    return SimpleITK.DICOMOrient(image, "LPS") if image.GetDimension() == 3 else image


def grey_window(grey: Volume, foreground: Volume, is_ct: bool) -> tuple[float, float]:
    """Grey values that are to be black and white.

    CT in HU: the lung window where much of what surrounds `foreground` (bool) is air or lung, else the soft-tissue one.
    Anything else: the 0.5th and 99.5th percentile.
    """
    if is_ct and grey.min() < -200:
        return LUNG_WINDOW if _air_around(grey, foreground) > LUNG_SHARE else SOFT_TISSUE_WINDOW
    low, high = np.percentile(grey, (0.5, 99.5))
    return float(low), float(max(high, low + 1e-6))


def _air_around(grey: Volume, foreground: Volume) -> float:
    """Share of air among the voxels up to `SURROUNDINGS` voxels outside of `foreground`; of all if it is empty."""
    if not foreground.any():
        return float(np.mean(grey < AIR))
    box = find_objects(foreground.astype(np.uint8))[0]
    around = tuple(slice(max(s.start - SURROUNDINGS, 0), s.stop + SURROUNDINGS) for s in box)
    shell = binary_dilation(foreground[around], iterations=SURROUNDINGS) & ~foreground[around]
    return float(np.mean(grey[around][shell] < AIR)) if shell.any() else 0.0


def largest_slice(mask: Volume, axis: int) -> int:
    """Index along `axis` of the slice with the most foreground; the middle one of an empty mask."""
    areas = np.count_nonzero(mask, axis=tuple(i for i in range(mask.ndim) if i != axis))
    return int(areas.argmax()) if areas.any() else mask.shape[axis] // 2


def choose_slices(masks: Sequence[Volume], axis: int) -> tuple[list[int], int]:
    """Indices along `axis`, at most `MAX_SLICES`, and the place of the first to show among them.

    They are spread evenly over the extent of all masks and `MARGIN` slices beyond it, or over everything if the masks
    are empty. `masks` are the reference and then the predictions; the largest slice of the first that is not empty is
    always among the indices.
    """
    others = tuple(i for i in range(masks[0].ndim) if i != axis)
    filled = np.flatnonzero(np.any([mask.any(axis=others) for mask in masks], axis=0))
    last = masks[0].shape[axis] - 1
    low, high = (max(filled[0] - MARGIN, 0), min(filled[-1] + MARGIN, last)) if len(filled) else (0, last)
    start = largest_slice(next((mask for mask in masks if mask.any()), masks[0]), axis)
    spread = np.unique(np.linspace(low, high, min(MAX_SLICES, high - low + 1)).round().astype(int))
    spread[np.abs(spread - start).argmin()] = start
    return spread.tolist(), int(np.flatnonzero(spread == start)[0])


def _draw_axis(
    picture: Volume,
    masks: Sequence[Volume],
    axis: int,
    spacing: tuple[float, ...],
    window: tuple[float, float] | None,
) -> Plane:
    name, origin = PLANES[axis]
    head_up = 1 if axis == 0 else -1
    indices, start = choose_slices(masks, axis)
    slices = []
    for index in indices:
        cuts = [volume.take(index, axis)[::head_up] for volume in (picture, *masks)]
        caption = f"slice {index + 1} of {picture.shape[axis]} {origin}, at {index * spacing[axis]:.4g} mm"
        slices.append(_slice(cuts[0], cuts[1:], window, caption))
    in_plane = tuple(s for i, s in enumerate(spacing) if i != axis)
    shape = tuple(n for i, n in enumerate(picture.shape) if i != axis)
    return _plane(name, in_plane, slices, shape, start)


def _plane(name: str, spacing: tuple[float, ...], slices: list[Slice], shape: tuple[int, ...], start: int) -> Plane:
    """`spacing` (mm) and `shape` of rows and columns."""
    rows, columns = shape
    return Plane(name, round(columns * spacing[1], 3), round(rows * spacing[0], 3), columns, rows, slices, start)


def _slice(picture: Volume, masks: Sequence[Volume], window: tuple[float, float] | None, caption: str) -> Slice:
    return Slice(encode(picture, window), caption, [outline(mask) for mask in masks])


def encode(picture: Volume, window: tuple[float, float] | None) -> str:
    """A slice (rows, columns) in `window`, or (rows, columns, 3) of bytes as it is, as a data URI."""
    if window is not None:
        low, high = window
        scaled = np.clip((picture.astype(np.float32) - low) / (high - low), 0, 1)
        picture = (scaled * 255).round().astype(np.uint8)
    drawn = Image.fromarray(np.ascontiguousarray(picture))
    largest = max(drawn.size)
    if largest > MAX_PIXELS:
        width, height = (max(round(n * MAX_PIXELS / largest), 1) for n in drawn.size)
        drawn = drawn.resize((width, height), Image.Resampling.BOX)
    buffer = io.BytesIO()
    if drawn.width * drawn.height <= SMALL:
        drawn.save(buffer, "PNG", optimize=True)
        return data_uri(buffer.getvalue(), "image/png")
    drawn.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return data_uri(buffer.getvalue(), "image/jpeg")
