"""How well scores rank the positive images above the negative ones."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in which the positive scores higher, a tie
    counting one half (the Mann-Whitney statistic over the number of pairs).

    Args:
        scores: (N,), any finite numbers; only their order counts.
        labels: (N,), 1 or True for positive, 0 or False for negative.

    Returns: a number in [0, 1]; nan when there is no positive or no negative.
    """
    positive = np.asarray(labels).astype(bool)
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if not num_positive or not num_negative:
        return math.nan
    rank_sum = float(rankdata(np.asarray(scores, dtype=np.float64))[positive].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def class_aucs(probabilities: NDArray[np.floating], labels: NDArray[np.floating]) -> list[float]:
    """`auc` of each class, one against the rest.

    Args:
        probabilities: (N, C).
        labels: (N, C), 1 positive, 0 negative, nan unknown; an unknown label takes its image out of that class only.

    Returns: C numbers, nan where a class has no positives or no negatives.
    """
    known = ~np.isnan(labels)
    return [auc(probabilities[k, c], labels[k, c]) for c, k in enumerate(known.T)]


def macro_auc(aucs: list[float]) -> float:
    """Mean over the classes that have an AUC; nan when none has."""
    defined = [value for value in aucs if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan
