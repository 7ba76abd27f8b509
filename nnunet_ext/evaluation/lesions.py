"""Lesion-wise detection: a lesion is a connected component of a mask, voxels touching by face, edge or corner."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
LESION_METRICS = ("LSEN", "LPPV", "LF1")


class LesionCounts(NamedTuple):
    """Lesions of the reference and of the prediction, and how many of each touch no voxel of the other mask."""

    reference_lesions: int
    prediction_lesions: int
    missed_lesions: int
    false_lesions: int


def count_lesions(reference: Mask, prediction: Mask) -> LesionCounts:
    """Lesions of two boolean arrays (2D or 3D) of one shape; a single common voxel makes two lesions touch."""
    num_reference, missed = _components_and_apart(reference, prediction)
    num_prediction, false = _components_and_apart(prediction, reference)
    return LesionCounts(num_reference, num_prediction, missed, false)


def _components_and_apart(mask: Mask, other: Mask) -> tuple[int, int]:
    """Number of components of `mask`, and of those without a voxel in `other`."""
    if not mask.any():
        return 0, 0
    import cc3d

    labels, number = cc3d.connected_components(
        mask.view(np.uint8), connectivity=26 if mask.ndim == 3 else 8, return_N=True
    )
    touched = np.bincount(labels[other], minlength=number + 1)[1:] > 0
    return int(number), int(number - touched.sum())


def lesion_metrics(counts: LesionCounts) -> dict[str, float]:
    """LSEN, LPPV and LF1; LSEN is nan without reference, LPPV without prediction, all nan without either.

    LF1 is 0 where a mask is empty and the other is not: every lesion is missed, or false.
    """
    reference, prediction, missed, false = counts
    if not reference and not prediction:
        return dict.fromkeys(LESION_METRICS, math.nan)
    sensitivity = (reference - missed) / reference if reference else math.nan
    precision = (prediction - false) / prediction if prediction else math.nan
    found = reference > missed and prediction > false
    f1 = 2 * sensitivity * precision / (sensitivity + precision) if found else 0.0
    return {"LSEN": sensitivity, "LPPV": precision, "LF1": f1}
