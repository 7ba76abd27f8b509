"""Image-level classification: per class AUC with its interval, AP and the measures at a threshold; confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.data.xray_dataset import TASKS
from nnunet_ext.evaluation.classification.results import ClassificationResult, Confusion, IntervalSettings
from nnunet_ext.evaluation.classification.roc import auc, average_precision, bootstrap_interval, delong_interval
from nnunet_ext.utilities.errors import UsageError

Array = NDArray[np.floating[Any]]
DEFAULT_INTERVALS = IntervalSettings()


def score_classes(
    probabilities: Array,
    labels: Array,
    classes: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    patients: Sequence[str] | None = None,
    task: str | None = None,
    threshold: float = 0.5,
    intervals: IntervalSettings = DEFAULT_INTERVALS,
) -> ClassificationResult:
    """Compare the probabilities of N images with what is known of them.

    Args:
        probabilities: (N, C), in [0, 1].
        labels: (N, C), 1 positive, 0 negative, nan unknown; an unknown label takes its image out of that class only.
        classes: C names.
        names: of the N images, for errors; None: they are numbered from 1.
        patients: N names, empty where unknown; None: none is known. An image without a patient counts as its own.
        task: ``multiclass`` or ``multilabel``; None: by `infer_task`.
        threshold: a probability of at least this is a positive prediction.
        intervals: of the AUCs.

    Raises:
        UsageError: threshold outside [0, 1], no such task, or a multiclass image whose known labels are not one 1.
    """
    if not 0 <= threshold <= 1:
        raise UsageError(f"threshold {threshold:g} must be in [0, 1]; it is compared with probabilities")
    task = task or infer_task(labels)
    if task not in TASKS:
        raise UsageError(f"task {task!r} is not one of {', '.join(TASKS)}")
    patients = patients or [""] * len(labels)
    groups = patient_numbers(patients)
    rows = []
    for c, name in enumerate(classes):
        known = ~np.isnan(labels[:, c])
        scores, positive = probabilities[known, c], labels[known, c] == 1
        low, high = _interval(scores, positive, groups[known], intervals)
        measures = {"auc": auc(scores, positive), "auc_low": low, "auc_high": high}
        counts = {"positives": int(positive.sum()), "negatives": int((~positive).sum())}
        counts["unknown"] = len(labels) - len(scores)
        measures["ap"] = average_precision(scores, positive)
        rows.append({"class": name, **measures, **threshold_measures(scores >= threshold, positive), **counts})
    names = names or [f"number {i + 1}" for i in range(len(labels))]
    confusion = confusion_matrix(probabilities, labels, names) if task == "multiclass" else None
    num_patients, without = len(set(patients) - {""}), sum(not patient for patient in patients)
    return ClassificationResult(rows, task, len(labels), num_patients, without, threshold, intervals, confusion)


def infer_task(labels: Array) -> str:
    """``multiclass`` if there are two classes or more and every row that is wholly known has exactly one 1.

    ``multilabel`` otherwise, also if no row is wholly known.
    """
    known = labels[~np.isnan(labels).any(1)]
    one_each = len(known) > 0 and labels.shape[1] > 1 and bool((known.sum(1) == 1).all())
    return "multiclass" if one_each else "multilabel"


def patient_numbers(patients: Sequence[str]) -> NDArray[np.int64]:
    """(N,) integers from 0, equal for the images of one patient; an image without a patient has its own."""
    names = [(patient, -1 if patient else i) for i, patient in enumerate(patients)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def threshold_measures(called: NDArray[np.bool_], positive: NDArray[np.bool_]) -> dict[str, float]:
    """Sensitivity, specificity, precision, F1 and the four counts of one class; nan for 0 / 0.

    Args:
        called: (N,), whether the prediction is positive.
        positive: (N,), whether the image is.
    """
    tp, fp = int((called & positive).sum()), int((called & ~positive).sum())
    fn, tn = int((~called & positive).sum()), int((~called & ~positive).sum())
    return {
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "precision": _ratio(tp, tp + fp),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        **{"TP": tp, "FP": fp, "FN": fn, "TN": tn},
    }


def confusion_matrix(probabilities: Array, labels: Array, names: Sequence[str]) -> Confusion:
    """Label against the class of highest probability (the first of equals), over the images that are wholly known.

    Raises:
        UsageError: an image with no 1 among its labels, or with several.
    """
    known = np.flatnonzero(~np.isnan(labels).any(1))
    wrong = known[labels[known].sum(1) != 1]
    if len(wrong):
        raise UsageError(
            f"{len(wrong)} of {len(labels)} images have not exactly one class (image {names[wrong[0]]} has"
            f" {labels[wrong[0]].sum():g}), but the task is multiclass; correct the labels or use --task multilabel"
        )
    num_classes = labels.shape[1]
    cells = labels[known].argmax(1) * num_classes + probabilities[known].argmax(1)
    return Confusion(np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes))


def _interval(
    scores: Array, positive: NDArray[np.bool_], groups: NDArray[np.int64], settings: IntervalSettings
) -> tuple[float, float]:
    if settings.method == "delong":
        return delong_interval(scores, positive)
    return bootstrap_interval(scores, positive, groups, resamples=settings.resamples, seed=settings.seed)


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan
