"""Paired tests, effect sizes and intervals of two methods on the same cases: SciPy on differences, and Holm.

Every function takes ``second - first`` per pair, so a positive result always means: the second method's value is
larger. The arrays are of shape (n,); nan pairs are the caller's (`paired_test`) to leave out and count.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Vector = NDArray[np.float64]

TESTS = {
    "wilcoxon": "Wilcoxon signed-rank test",
    "t": "paired t-test",
    "permutation": "sign-flip permutation test of the mean difference",
}
EFFECTS = {
    "wilcoxon": "matched-pairs rank-biserial correlation",
    "t": "Cohen's d_z",
    "permutation": "Cohen's d_z",
}
MIN_PAIRS = 6
"""With fewer pairs that differ every two-sided sign-based p-value is at least 2 / 2**5 = 0.0625."""
TIE_DECIMALS = 12
BATCH_ELEMENTS = 4_000_000


class PairedResult(NamedTuple):
    """One test: pairs tested, pairs left out because undefined, pairs with an infinite value, what was found, and how
    many of the pairs tested differ at all.

    `mean_difference` and its 95 % interval `low`, `high` are over the finite pairs; nan where there are too few.
    """

    n: int
    undefined: int
    infinite: int
    mean_difference: float
    low: float
    high: float
    effect: float
    p: float
    unequal: int


def paired_test(
    first: ArrayLike, second: ArrayLike, test: str = "wilcoxon", *, resamples: int = 2000, seed: int = 0
) -> PairedResult:
    """Compare two methods' values of the same n cases, both of shape (n,).

    A pair with a nan is left out and counted. An infinite value is ranked by "wilcoxon" (`rank_differences`); "t" and
    "permutation" cannot use it and test the finite pairs only: n is smaller by `infinite` then. Fewer than two pairs
    tested: effect and p are nan.

    Args:
        first: values of the first method, finite, inf or nan.
        second: values of the second method.
        test: key of `TESTS`.
        resamples: of the bootstrap and of the permutation test.
        seed: of both; the same seed gives the same numbers.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    defined = ~(np.isnan(first) | np.isnan(second))
    infinite = int(np.count_nonzero(np.isinf(first[defined]) | np.isinf(second[defined])))
    differences = rank_differences(first[defined], second[defined])
    finite = differences[np.isfinite(first[defined]) & np.isfinite(second[defined])]

    tested = differences if test == "wilcoxon" else finite
    effect = rank_biserial(tested) if test == "wilcoxon" else cohens_dz(tested)
    p = {
        "wilcoxon": lambda: wilcoxon_p(tested),
        "t": lambda: t_p(tested),
        "permutation": lambda: permutation_p(tested, resamples, seed),
    }[test]()
    mean = float(finite.mean()) if finite.size else math.nan
    low, high = bootstrap_interval(finite, resamples, seed)
    undefined = int(np.count_nonzero(~defined))
    unequal = int(np.count_nonzero(tested))
    return PairedResult(tested.size, undefined, infinite, mean, low, high, effect, p, unequal)


def rank_differences(first: Vector, second: Vector) -> Vector:
    """``second - first`` of values without nan, with finite stand-ins for what is infinite.

    inf - finite is larger than any finite difference (and all of these tie), finite - inf is smaller, inf - inf is 0.
    Differences are rounded to 12 decimals, as SciPy advises for signed ranks: 2/3 - 1/3 and 1/3 - 0 must tie.
    """
    finite = np.isfinite(first) & np.isfinite(second)
    differences = np.zeros_like(first)
    differences[finite] = np.round(second[finite] - first[finite], TIE_DECIMALS)
    largest = 2 * np.abs(differences).max(initial=0.0) + 1
    differences[~finite] = largest * (np.isinf(second[~finite]).astype(float) - np.isinf(first[~finite]))
    return differences


def wilcoxon_p(differences: Vector) -> float:
    """Two-sided p of the signed-rank test (zeros dropped); 1 if all differences are zero, nan for n < 2.

    Zeros are dropped before SciPy counts: it would take many zeros for a large sample, and the normal approximation of
    the few differences that are left is far too small (4 of 20 pairs: 0.046 where 0.125 is exact).
    """
    if differences.size < 2:
        return math.nan
    unequal = differences[differences != 0]
    return float(stats.wilcoxon(unequal).pvalue) if unequal.size else 1.0


def t_p(differences: Vector) -> float:
    """Two-sided p of the paired t-test; 1 if all differences are zero, nan for n < 2 or one constant other value."""
    if differences.size >= 2 and not differences.any():
        return 1.0
    if differences.size < 2 or np.ptp(differences) == 0:
        return math.nan
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def permutation_p(differences: Vector, resamples: int, seed: int) -> float:
    """Two-sided p of the mean under random signs; exact where 2**n <= `resamples`; nan for n < 2."""
    if differences.size < 2:
        return math.nan
    # Exchanging a difference with zero within its pair flips the sign of the pair's difference.
    found = stats.permutation_test(
        (differences, np.zeros_like(differences)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=_batch(differences.size),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def rank_biserial(differences: Vector) -> float:
    """Matched-pairs rank-biserial correlation: (positive - negative rank sum) / total, zeros dropped.

    Ranges from -1 (every pair: second smaller) to 1; nan if every difference is zero or n < 2.
    """
    unequal = differences[differences != 0]
    if unequal.size == 0 or differences.size < 2:
        return math.nan
    ranks = stats.rankdata(np.abs(unequal))
    return float(np.sum(np.sign(unequal) * ranks) / ranks.sum())


def cohens_dz(differences: Vector) -> float:
    """Mean difference over the differences' standard deviation (n - 1); nan for n < 2 or constant differences."""
    if differences.size < 2 or np.ptp(differences) == 0:
        return math.nan
    return float(differences.mean() / differences.std(ddof=1))


def bootstrap_interval(differences: Vector, resamples: int, seed: int) -> tuple[float, float]:
    """95 % interval of the mean of finite differences: BCa, or percentile where BCa is degenerate.

    Constant differences: that value twice. n < 2: nan twice.
    """
    if differences.size < 2:
        return math.nan, math.nan
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])

    def interval(method: str) -> Any:
        return stats.bootstrap(
            (differences,),
            np.mean,
            n_resamples=resamples,
            method=method,
            batch=_batch(differences.size),
            rng=np.random.default_rng(seed),
        ).confidence_interval

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = interval("BCa")
    if math.isnan(found.low) or math.isnan(found.high):
        found = interval("percentile")
    return float(found.low), float(found.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values in the given order: monotone, at most 1; a nan stays nan and does not count."""
    adjusted = [math.nan] * len(p_values)
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for step, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - step) * p))
        adjusted[i] = largest
    return adjusted


def _batch(n: int) -> int:
    """Resamples at a time, so that thousands of cases fit in memory."""
    return max(1, BATCH_ELEMENTS // n)
