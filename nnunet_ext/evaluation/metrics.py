"""Overlap and surface metrics of two binary masks.

All surface metrics share one pair of directed distances, found once per class. Definition A, that of MONAI: the surface
of a mask is its edge voxels (mask without its erosion by the 2d-neighbourhood; outside the image is background), a
distance is the Euclidean distance in mm from the centre of an edge voxel to the nearest centre of an edge voxel of
the other mask.

Empty masks: both empty, every metric is nan (nothing to find, nothing found: left out of means and counted). One
empty: HD = HD95 = ASD = ASSD = inf and DSC = IoU = NSD = 0; SEN is nan without reference, PPV nan without prediction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]

DEFINITIONS = {
    "DSC": "Dice similarity coefficient 2 TP / (2 TP + FP + FN), voxels",
    "IoU": "intersection over union TP / (TP + FP + FN), voxels",
    "SEN": "sensitivity TP / (TP + FN), voxels",
    "SPE": "specificity TN / (TN + FP), voxels of the whole image",
    "PPV": "precision TP / (TP + FP), voxels",
    "HD": "Hausdorff distance in mm: the largest of all distances between the surfaces, both directions",
    "HD95": "the larger of the two directed 95th percentiles (linear interpolation) of surface distance, mm",
    "ASD": "mean distance in mm from the prediction's surface to the reference's (one direction, as MedPy)",
    "ASSD": "mean of the surface distances of both directions, pooled (as MONAI), mm",
    "NSD": "normalised surface Dice: share of the edge voxels of both surfaces within the tolerance of the other",
}
OVERLAP_METRICS = ("DSC", "IoU", "SEN", "SPE", "PPV")
SURFACE_METRICS = ("HD", "HD95", "ASD", "ASSD", "NSD")
MILLIMETRE_METRICS = ("HD", "HD95", "ASD", "ASSD")


class Counts(NamedTuple):
    """Voxels of the confusion matrix."""

    TP: int
    FP: int
    FN: int
    TN: int


class SurfaceDistances(NamedTuple):
    """Distances in mm from every edge voxel of one mask to the surface of the other; both empty if a mask is."""

    prediction_to_reference: Array
    reference_to_prediction: Array


def count_voxels(reference: Mask, prediction: Mask, ignored: Mask | None = None) -> Counts:
    """Confusion matrix of two boolean arrays of one shape; voxels in `ignored` count nowhere.

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(reference, prediction)
    if ignored is not None:
        reference, prediction = reference & ~ignored, prediction & ~ignored
    considered = reference.size - (0 if ignored is None else np.count_nonzero(ignored))
    tp = np.count_nonzero(reference & prediction)
    fp = np.count_nonzero(prediction) - tp
    fn = np.count_nonzero(reference) - tp
    return Counts(int(tp), int(fp), int(fn), int(considered - tp - fp - fn))


def overlap_metrics(counts: Counts) -> dict[str, float]:
    """DSC, IoU, SEN, SPE, PPV (`DEFINITIONS`); all nan if reference and prediction are empty."""
    tp, fp, fn, tn = counts
    if tp + fp + fn == 0:
        return dict.fromkeys(OVERLAP_METRICS, math.nan)
    return {
        "DSC": 2 * tp / (2 * tp + fp + fn),
        "IoU": tp / (tp + fp + fn),
        "SEN": _ratio(tp, tp + fn),
        "SPE": _ratio(tn, tn + fp),
        "PPV": _ratio(tp, tp + fp),
    }


def edge_voxels(mask: Mask) -> Mask:
    """Voxels of `mask` with a background voxel, or the image's border, across one of their faces; any dimension."""
    padded = np.pad(mask, 1)
    interior = mask.copy()
    for axis, length in enumerate(mask.shape):
        for start in (0, 2):
            window = [slice(1, -1)] * mask.ndim
            window[axis] = slice(start, start + length)
            interior &= padded[tuple(window)]
    edges: Mask = mask & ~interior
    return edges


def surface_distances(reference: Mask, prediction: Mask, spacing: Sequence[float]) -> SurfaceDistances:
    """Directed surface distances of two masks.

    Args:
        reference: boolean, 2D or 3D. An axis of length 1 is dropped: a single slice is a 2D image.
        prediction: boolean, of the same shape.
        spacing: mm per voxel, in the order of the array's axes.

    Returns: distances in mm, one per edge voxel, in C order of the voxels; both arrays empty if either mask is.

    Raises:
        ValueError: the shapes differ, or `spacing` has another length or a number that is not positive.
    """
    _check_shapes(reference, prediction)
    if len(spacing) != reference.ndim or not all(s > 0 for s in spacing):
        raise ValueError(f"spacing={tuple(spacing)} must be {reference.ndim} positive numbers (mm)")
    if not reference.any() or not prediction.any():
        return SurfaceDistances(np.empty(0), np.empty(0))
    axes = [axis for axis, length in enumerate(reference.shape) if length > 1] or [0]
    shape = [reference.shape[axis] for axis in axes]
    reference, prediction = reference.reshape(shape), prediction.reshape(shape)
    box = find_objects((reference | prediction).view(np.uint8))[0]
    scale = np.asarray(spacing, dtype=np.float64)[axes]
    reference_points = np.argwhere(edge_voxels(reference[box])) * scale
    prediction_points = np.argwhere(edge_voxels(prediction[box])) * scale
    return SurfaceDistances(
        cKDTree(reference_points).query(prediction_points)[0], cKDTree(prediction_points).query(reference_points)[0]
    )


def surface_metrics(distances: SurfaceDistances, tolerance_mm: float) -> dict[str, float]:
    """HD, HD95, ASD, ASSD, NSD (`DEFINITIONS`) of two masks that are not empty.

    Raises:
        ValueError: no distances, or a negative tolerance.
    """
    if tolerance_mm < 0:
        raise ValueError(f"tolerance_mm={tolerance_mm} must not be negative")
    forward, backward = distances
    if not forward.size or not backward.size:
        raise ValueError("a mask is empty and has no surface; see empty_metrics")
    both = np.concatenate(distances)
    return {
        "HD": float(both.max()),
        "HD95": float(max(np.percentile(forward, 95), np.percentile(backward, 95))),
        "ASD": float(forward.mean()),
        "ASSD": float(both.mean()),
        "NSD": float(np.count_nonzero(both <= tolerance_mm) / both.size),
    }


def empty_metrics(reference_empty: bool, prediction_empty: bool) -> dict[str, float]:
    """Surface metrics by rule where one mask is empty (inf, NSD 0) or both are (nan)."""
    if reference_empty and prediction_empty:
        return dict.fromkeys(SURFACE_METRICS, math.nan)
    return dict.fromkeys(MILLIMETRE_METRICS, math.inf) | {"NSD": 0.0}


def mask_metrics(
    reference: Mask,
    prediction: Mask,
    spacing: Sequence[float],
    tolerance_mm: float,
    ignored: Mask | None = None,
) -> tuple[dict[str, float], Counts]:
    """Every metric of `DEFINITIONS`, and the voxel counts behind them.

    `ignored` voxels are background in both masks for the surfaces and count nowhere in the overlap. The other arguments
    are those of `surface_distances` and `surface_metrics`.
    """
    counts = count_voxels(reference, prediction, ignored)
    if ignored is not None:
        reference, prediction = reference & ~ignored, prediction & ~ignored
    reference_empty, prediction_empty = counts.TP + counts.FN == 0, counts.TP + counts.FP == 0
    if reference_empty or prediction_empty:
        surface = empty_metrics(reference_empty, prediction_empty)
    else:
        surface = surface_metrics(surface_distances(reference, prediction, spacing), tolerance_mm)
    return overlap_metrics(counts) | surface, counts


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan


def _check_shapes(reference: Mask, prediction: Mask) -> None:
    if reference.shape != prediction.shape:
        raise ValueError(f"reference has shape {reference.shape}, prediction {prediction.shape}; they must be equal")
