"""Every metric of two binary masks: overlap, surface distance, volume, lesions.

Empty masks: both empty, every metric is nan (nothing to find, nothing found: left out of means and counted). One
empty: HD = HD95 = ASD = ASD_ref = ASSD = inf and DSC = IoU = NSD = 0; what divides by zero is nan: SEN, RVE and LSEN
without reference, PPV and LPPV without prediction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from nnunet_ext.evaluation.lesions import LesionCounts, count_lesions, lesion_metrics
from nnunet_ext.evaluation.surface import MILLIMETRE_METRICS, SURFACE_METRICS, surface_distances, surface_metrics
from nnunet_ext.utilities.errors import UsageError

Mask = NDArray[np.bool_]


class Metric(NamedTuple):
    """What a metric is: definition, unit ("" for a share), and which values are good ("high", "low", or "zero": the
    closer to zero the better, from either side)."""

    text: str
    unit: str
    best: str


METRICS = {
    "DSC": Metric("Dice similarity coefficient 2 TP / (2 TP + FP + FN), voxels", "", "high"),
    "IoU": Metric("intersection over union TP / (TP + FP + FN), voxels", "", "high"),
    "SEN": Metric("sensitivity TP / (TP + FN), voxels", "", "high"),
    "SPE": Metric("specificity TN / (TN + FP), voxels of the whole image", "", "high"),
    "PPV": Metric("precision TP / (TP + FP), voxels", "", "high"),
    "MAE": Metric("mean absolute error of the binary masks (FP + FN) / all voxels", "", "low"),
    "HD": Metric("Hausdorff distance: the largest of all distances between the surfaces, both directions", "mm", "low"),
    "HD95": Metric(
        "95th percentile of the surface distances, both directions (as the surface definition says)", "mm", "low"
    ),
    "ASD": Metric("mean distance from the prediction's surface to the reference's", "mm", "low"),
    "ASD_ref": Metric("mean distance from the reference's surface to the prediction's", "mm", "low"),
    "ASSD": Metric("mean of the surface distances of both directions (as the surface definition says)", "mm", "low"),
    "NSD": Metric("normalised surface Dice: share of both surfaces within the tolerance of the other", "", "high"),
    "VE": Metric("volume error: prediction - reference", "mL", "zero"),
    "RVE": Metric("relative volume error (prediction - reference) / reference", "", "zero"),
    "LSEN": Metric("lesion sensitivity: share of the reference's lesions that the prediction touches", "", "high"),
    "LPPV": Metric("lesion precision: share of the prediction's lesions that touch the reference", "", "high"),
    "LF1": Metric("harmonic mean of LSEN and LPPV", "", "high"),
}
OVERLAP_METRICS = ("DSC", "IoU", "SEN", "SPE", "PPV", "MAE")


class Counts(NamedTuple):
    """Voxels of the confusion matrix."""

    TP: int
    FP: int
    FN: int
    TN: int


class MaskScores(NamedTuple):
    """Everything about two masks: `METRICS` by name, and the counts behind them."""

    metrics: dict[str, float]
    counts: Counts
    lesions: LesionCounts


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
    """DSC, IoU, SEN, SPE, PPV, MAE (`METRICS`); all nan if reference and prediction are empty."""
    tp, fp, fn, tn = counts
    if tp + fp + fn == 0:
        return dict.fromkeys(OVERLAP_METRICS, math.nan)
    return {
        "DSC": 2 * tp / (2 * tp + fp + fn),
        "IoU": tp / (tp + fp + fn),
        "SEN": _ratio(tp, tp + fn),
        "SPE": _ratio(tn, tn + fp),
        "PPV": _ratio(tp, tp + fp),
        "MAE": (fp + fn) / (tp + fp + fn + tn),
    }


def volume_ml(num_voxels: int, spacing: Sequence[float]) -> float:
    """Millilitres of so many voxels of `spacing` (mm); nan for a 2D image, which has no volume."""
    return num_voxels * math.prod(spacing) / 1000 if len(spacing) == 3 else math.nan


def volume_metrics(counts: Counts, spacing: Sequence[float]) -> dict[str, float]:
    """VE and RVE (`METRICS`); both nan if both masks are empty. A 2D image has no VE, and the RVE of its area."""
    tp, fp, fn, _ = counts
    if tp + fp + fn == 0:
        return {"VE": math.nan, "RVE": math.nan}
    return {"VE": volume_ml(fp - fn, spacing), "RVE": _ratio(fp - fn, tp + fn)}


def empty_surface_metrics(reference_empty: bool, prediction_empty: bool) -> dict[str, float]:
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
    surface_definition: str = "A",
) -> MaskScores:
    """Every metric of `METRICS`, in its order, and the counts behind them.

    `ignored` voxels are background in both masks for surfaces and lesions and count nowhere in the overlap. The other
    arguments are those of `surface.surface_distances` and `surface.surface_metrics`.
    """
    counts = count_voxels(reference, prediction, ignored)
    if ignored is not None:
        reference, prediction = reference & ~ignored, prediction & ~ignored
    reference_empty, prediction_empty = counts.TP + counts.FN == 0, counts.TP + counts.FP == 0
    if reference_empty or prediction_empty:
        surface = empty_surface_metrics(reference_empty, prediction_empty)
    else:
        distances = surface_distances(reference, prediction, spacing, surface_definition)
        surface = surface_metrics(distances, tolerance_mm, surface_definition)
    # The surfaces need the whole arrays: in a crop, a lesion of one slice would look like a 2D image.
    box = next(iter(find_objects((reference | prediction).view(np.uint8))), ())
    lesions = count_lesions(reference[box], prediction[box])
    found = overlap_metrics(counts) | surface | volume_metrics(counts, spacing) | lesion_metrics(lesions)
    return MaskScores({name: found[name] for name in METRICS}, counts, lesions)


def require_metrics(names: Sequence[str]) -> None:
    """Raises UsageError for a name that is not in `METRICS`."""
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise UsageError(f"no metric {', '.join(unknown)}; choose among {', '.join(METRICS)}")


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan


def _check_shapes(reference: Mask, prediction: Mask) -> None:
    if reference.shape != prediction.shape:
        raise ValueError(f"reference has shape {reference.shape}, prediction {prediction.shape}; they must be equal")
