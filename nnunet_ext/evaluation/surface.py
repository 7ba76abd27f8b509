"""Distances between the surfaces of two masks, found once and shared by all surface metrics.

Three definitions of surface, distance and percentile are in use, and their numbers differ:

A (default, as MONAI): the surface is the edge voxels (mask without its erosion by the 2d-neighbourhood; outside the
  image is background); HD95 is the larger of the two directed percentiles, ASSD the mean of all distances, pooled.
B (as MedPy): the same edge voxels; HD95 is the percentile of the distances of both directions, pooled, ASSD the mean of
  the two directed means.
C (as DeepMind's surface-distance): the surface is surfels, one per corner of the voxel grid whose 2x2x2 neighbours
  differ, weighted by the area (2D: 2x2 and length) of the marching-cubes surface there; means, percentiles and NSD are
  weighted by area, HD95 is the larger of the two directed weighted percentiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from nnunet_ext.evaluation.nearest import nearest_distances
from nnunet_ext.evaluation.surfels import SurfelAreas, surfels

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]

SURFACE_DEFINITIONS = {
    "A": "edge voxels; HD95: larger of the two directed percentiles; ASSD: pooled mean (as MONAI)",
    "B": "edge voxels; HD95: percentile of both directions pooled; ASSD: mean of the two directed means (as MedPy)",
    "C": "area-weighted surfels; HD95: larger of the two directed weighted percentiles (as surface-distance)",
}
MILLIMETRE_METRICS = ("HD", "HD95", "ASD", "ASD_ref", "ASSD")
PERCENT = 95
TOLERANCE_SLACK = 1e-6
"""NIfTI keeps spacings in fp32: voxels of 1.2 mm are 1.2000000477 mm apart, and are meant to be within 1.2 mm."""
SURFACE_METRICS = (*MILLIMETRE_METRICS, "NSD")


class SurfaceDistances(NamedTuple):
    """Distances in mm from every surface element of one mask to the surface of the other, and the areas of the
    elements; None where all elements count alike. Empty if a mask is."""

    prediction_to_reference: Array
    reference_to_prediction: Array
    prediction_areas: SurfelAreas | None = None
    reference_areas: SurfelAreas | None = None


def edge_voxels(mask: Mask) -> Mask:
    """Voxels of `mask` with a background voxel, or the image's border, across one of their faces; any dimension."""
    edges: Mask = mask.copy()
    inner = edges[(slice(1, -1),) * mask.ndim]
    interior = mask[(slice(1, -1),) * mask.ndim].copy()
    for axis in range(mask.ndim):
        for start, stop in ((0, -2), (2, None)):
            window = [slice(1, -1)] * mask.ndim
            window[axis] = slice(start, stop)
            interior &= mask[tuple(window)]
    inner &= np.logical_not(interior, out=interior)
    return edges


def surface_distances(
    reference: Mask, prediction: Mask, spacing: Sequence[float], definition: str = "A"
) -> SurfaceDistances:
    """Directed surface distances of two masks.

    Args:
        reference: boolean, 2D or 3D. An axis of length 1 is dropped: a single slice is a 2D image.
        prediction: boolean, of the same shape.
        spacing: mm per voxel, in the order of the array's axes.
        definition: a key of `SURFACE_DEFINITIONS`.

    Returns: distances in mm, one per surface element, in C order; all arrays empty if either mask is.

    Raises:
        ValueError: the shapes differ, `spacing` has another length or a number that is not positive, or there is no
            such definition.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"reference has shape {reference.shape}, prediction {prediction.shape}; they must be equal")
    if len(spacing) != reference.ndim or not all(s > 0 for s in spacing):
        raise ValueError(f"spacing={tuple(spacing)} must be {reference.ndim} positive numbers (mm)")
    if definition not in SURFACE_DEFINITIONS:
        raise ValueError(f"surface definition {definition!r} is none of {', '.join(SURFACE_DEFINITIONS)}")
    if not reference.any() or not prediction.any():
        return SurfaceDistances(np.empty(0), np.empty(0))
    axes = [axis for axis, length in enumerate(reference.shape) if length > 1] or [0]
    shape = [reference.shape[axis] for axis in axes]
    reference, prediction = reference.reshape(shape), prediction.reshape(shape)
    box = find_objects((reference | prediction).view(np.uint8))[0]
    scale = np.asarray(spacing, dtype=np.float64)[axes]
    reference_elements, reference_areas, grid = _surface(reference[box], scale, definition)
    prediction_elements, prediction_areas, _ = _surface(prediction[box], scale, definition)
    return SurfaceDistances(
        nearest_distances(prediction_elements, reference_elements, grid, scale),
        nearest_distances(reference_elements, prediction_elements, grid, scale),
        prediction_areas,
        reference_areas,
    )


def _surface(
    mask: Mask, scale: Array, definition: str
) -> tuple[NDArray[np.int64], SurfelAreas | None, tuple[int, ...]]:
    """Places of the surface elements on their grid, counted in C order; their areas; the shape of the grid."""
    elements, areas = surfels(mask, scale) if definition == "C" else (edge_voxels(mask), None)
    return np.flatnonzero(elements), areas, elements.shape


class _Directed(NamedTuple):
    """What the distances of one direction come to."""

    largest: float
    mean: float
    percentile: float
    near: float
    total: float


def surface_metrics(distances: SurfaceDistances, tolerance_mm: float, definition: str = "A") -> dict[str, float]:
    """HD, HD95, ASD, ASD_ref, ASSD, NSD (`metrics.METRICS`) of two masks that are not empty.

    Raises:
        ValueError: no distances, or a negative tolerance.
    """
    if not tolerance_mm >= 0:
        raise ValueError(f"tolerance_mm={tolerance_mm} must not be negative")
    forward, backward = distances.prediction_to_reference, distances.reference_to_prediction
    if not forward.size or not backward.size:
        raise ValueError("a mask is empty and has no surface; see metrics.empty_surface_metrics")
    there = _directed(forward, distances.prediction_areas, tolerance_mm)
    back = _directed(backward, distances.reference_areas, tolerance_mm)
    total = there.total + back.total
    hd95, assd = max(there.percentile, back.percentile), (there.mean * there.total + back.mean * back.total) / total
    if definition == "B":
        hd95, assd = float(np.percentile(np.concatenate([forward, backward]), PERCENT)), (there.mean + back.mean) / 2
    return {
        "HD": max(there.largest, back.largest),
        "HD95": hd95,
        "ASD": there.mean,
        "ASD_ref": back.mean,
        "ASSD": assd,
        "NSD": (there.near * there.total + back.near * back.total) / total,
    }


def _directed(distances: Array, areas: SurfelAreas | None, tolerance_mm: float) -> _Directed:
    """Largest, mean and percentile of one direction, the share within the tolerance, and the weight of it all."""
    near = distances <= tolerance_mm * (1 + TOLERANCE_SLACK)
    if areas is None:
        percentile = float(np.percentile(distances, PERCENT))
        return _Directed(
            float(distances.max()), float(distances.mean()), percentile, float(near.mean()), len(distances)
        )
    weights = areas.values()
    total = float(weights.sum())
    return _Directed(
        float(distances.max()),
        float(distances @ weights) / total,
        weighted_percentile(distances, weights, PERCENT),
        float(near @ weights) / total,
        total,
    )


def weighted_percentile(values: Array, weights: Array, percent: float) -> float:
    """The smallest of `values` up to which `percent` of the total weight lies (no interpolation), but for rounding."""
    order = np.argsort(values)
    share = weights[order]
    np.cumsum(share, out=share)
    position = np.searchsorted(share, percent / 100 * share[-1] * (1 - 1e-9))
    return float(values[order[min(int(position), len(values) - 1)]])
