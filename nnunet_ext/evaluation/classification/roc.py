"""How well scores rank the positive images above the negative ones, and how sure that is.

All functions take scores (N,), any finite numbers of which only the order counts, and labels (N,), 1 or True for
positive, 0 or False for negative. An interval is (low, high) in [0, 1].

An interval is undefined, (nan, nan), where the data do not tell their own spread: with fewer than two positives or two
negatives, and at an AUC of exactly 0 or 1, where every resample is separated as perfectly as the sample and both
methods would claim certainty, however few the images.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

Interval = tuple[float, float]
UNDEFINED: Interval = (math.nan, math.nan)
LEVEL = 0.95


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in which the positive scores higher, a tie
    counting one half (the Mann-Whitney statistic over the number of pairs).

    Returns: a number in [0, 1]; nan when there is no positive or no negative.
    """
    positive = np.asarray(labels).astype(bool)
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if not num_positive or not num_negative:
        return math.nan
    rank_sum = float(rankdata(np.asarray(scores, dtype=np.float64))[positive].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Sum over the distinct scores, from high to low, of precision times the gain in sensitivity; no interpolation.

    Returns: a number in (0, 1]; nan when there is no positive.
    """
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(bool)
    if not positive.any():
        return math.nan
    _, group = np.unique(-scores, return_inverse=True)  # images of one score are called together
    called = np.cumsum(np.bincount(group))
    found = np.cumsum(np.bincount(group, positive))
    return float(np.sum(np.diff(found, prepend=0) * found / called) / found[-1])


def delong_variance(scores: ArrayLike, labels: ArrayLike) -> float:
    """Variance of the AUC by DeLong, DeLong and Clarke-Pearson (1988), from midranks in O(N log N) (Sun and Xu, 2014).

    The share of negatives that a positive outscores is its rank among all less its rank among the positives, over the
    number of negatives; and so for the negatives. The variance is the sum of the variances of both means.

    Returns: nan with fewer than two positives or two negatives.
    """
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(bool)
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if min(num_positive, num_negative) < 2:
        return math.nan
    ranks = rankdata(scores)
    outscored = (ranks[positive] - rankdata(scores[positive])) / num_negative
    outscoring = (ranks[~positive] - rankdata(scores[~positive])) / num_positive
    return float(outscored.var(ddof=1) / num_positive + outscoring.var(ddof=1) / num_negative)


def delong_interval(scores: ArrayLike, labels: ArrayLike, level: float = LEVEL) -> Interval:
    """Interval of the AUC from `delong_variance`, symmetric on the logit scale; assumes independent images.

    On the logit scale it cannot leave [0, 1], and it covers better than the symmetric interval where the AUC is high
    and the images are few. Undefined: see the module.
    """
    area, variance = auc(scores, labels), delong_variance(scores, labels)
    if math.isnan(variance) or not 0 < area < 1:
        return UNDEFINED
    half_width = norm.ppf((1 + level) / 2) * math.sqrt(variance) / (area * (1 - area))  # d logit(A) = dA / (A (1 - A))
    return float(expit(logit(area) - half_width)), float(expit(logit(area) + half_width))


def bootstrap_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    patients: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """Percentile interval of the AUC over resampled patients, each of whom brings all their images.

    Patients are drawn with replacement within three strata: those with positive images only, with negative images
    only, with both. Every resample then has both classes.

    Args:
        patients: (N,), integers from 0; equal numbers mark the images of one patient.
        resamples: how many.
        seed: equal seeds give equal intervals.
        level: share of the resamples inside.

    Returns: undefined (see the module) also when all positives, or all negatives, are of one patient.
    """
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(bool)
    _, patient = np.unique(patients, return_inverse=True)  # 0 .. P - 1, without gaps
    has_positive, has_negative = np.bincount(patient, positive) > 0, np.bincount(patient, ~positive) > 0
    if min(has_positive.sum(), has_negative.sum()) < 2 or not 0 < auc(scores, labels) < 1:
        return UNDEFINED
    strata = [np.flatnonzero(has_positive & ~has_negative), np.flatnonzero(has_negative & ~has_positive)]
    strata.append(np.flatnonzero(has_positive & has_negative))
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # of each run of equal scores
    patient, positive = patient[order], positive[order]
    generator = np.random.default_rng(seed)
    areas = np.empty(resamples)
    for i in range(resamples):
        drawn = np.concatenate([generator.choice(stratum, len(stratum)) for stratum in strata if len(stratum)])
        weights = np.bincount(drawn, minlength=len(has_positive))[patient]
        areas[i] = _weighted_auc(weights * positive, weights * ~positive, starts)
    low, high = np.quantile(areas, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _weighted_auc(positive: NDArray[np.int64], negative: NDArray[np.int64], starts: NDArray[np.int64]) -> float:
    """`auc` of images in ascending order of score, each counted as often as its weight in one of the two arrays says;
    `starts` are the indices at which a new score begins."""
    positive, negative = np.add.reduceat(positive, starts), np.add.reduceat(negative, starts)
    below = np.cumsum(negative) - negative / 2  # negatives that score lower, and half of the ties
    return float(positive @ below / (positive.sum() * negative.sum()))
