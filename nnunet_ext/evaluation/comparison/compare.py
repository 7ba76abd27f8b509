"""Two or more methods on the same cases: summaries per stratum, class and metric, and paired tests with Holm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.evaluation.comparison.pairing import Method, PairedValues, name_some, pair_values
from nnunet_ext.evaluation.comparison.statistics import MIN_PAIRS, TESTS, holm, paired_test
from nnunet_ext.evaluation.metrics import METRICS, require_metrics
from nnunet_ext.evaluation.results import TABLE_METRICS, summarise
from nnunet_ext.utilities.errors import UsageError

ALL_CASES = ""
"""Name of the stratum of all cases, always the first."""
ALPHA = 0.05
"""Corrected p-values below it are called significant."""


@dataclass(frozen=True)
class PairedTest:
    """One metric of one class in one stratum, second method against first.

    Attributes:
        metric: key of `METRICS`; of those whose best value is zero, absolute values are tested (`metric_label`).
        class_name: a class, or `MEAN_CLASS`.
        stratum: `ALL_CASES` or the name of a stratum.
        first: name of the method compared with (the baseline unless all pairs are tested).
        second: name of the other method.
        n: pairs tested.
        unequal: those of them whose two values differ.
        undefined: pairs left out because one value or both are nan.
        infinite: pairs with an infinite value: ranked by "wilcoxon", left out by the other tests.
        mean_difference: second - first over the finite pairs.
        low: lower end of the 95 % bootstrap interval of `mean_difference`.
        high: upper end.
        effect: rank-biserial correlation or Cohen's d_z; positive: the second method's values are larger.
        p: raw two-sided p-value; nan where nothing could be tested.
        p_holm: p corrected for all tests of this metric in this stratum (pairs x classes).
    """

    metric: str
    class_name: str
    stratum: str
    first: str
    second: str
    n: int
    unequal: int
    undefined: int
    infinite: int
    mean_difference: float
    low: float
    high: float
    effect: float
    p: float
    p_holm: float

    @property
    def better(self) -> str:
        """Name of the method that the effect points to, significant or not; "" where it is zero or nan."""
        if math.isnan(self.effect) or self.effect == 0:
            return ""
        return self.second if (self.effect > 0) == (METRICS[self.metric].best == "high") else self.first


@dataclass(frozen=True)
class Comparison:
    """Everything a table or a report shows of a comparison.

    Attributes:
        methods: names, the baseline first.
        classes: in order; `MEAN_CLASS` last where there is more than one.
        metrics: in order.
        strata: `ALL_CASES` first.
        cases: compared cases, in order.
        summaries: (stratum, class, metric, method) -> `results.summarise` of the cases' values (averaged over repeats;
            absolute values for metrics whose best value is zero).
        tests: by stratum, metric, class and pair.
        test: key of `statistics.TESTS`.
        seed: of bootstrap and permutations.
        notes: sentences on what was left out and what differs.
        surface_definition: of all results.
        tolerance_mm: of NSD.
        resamples: of bootstrap and permutations.
        has_mean: whether the last class is `MEAN_CLASS`, the mean over the others, and no class of that name.
    """

    methods: list[str]
    classes: list[str]
    metrics: list[str]
    strata: list[str]
    cases: list[str]
    summaries: dict[tuple[str, str, str, str], dict[str, float]]
    tests: list[PairedTest]
    test: str
    seed: int
    notes: list[str]
    surface_definition: str
    tolerance_mm: float
    resamples: int
    has_mean: bool

    def size(self, stratum: str) -> int:
        """Number of cases of a stratum."""
        summary = self.summaries[stratum, self.classes[0], self.metrics[0], self.methods[0]]
        return int(summary["n"] + summary["infinite"] + summary["undefined"])

    def ranks(self, stratum: str, class_name: str, metric: str) -> dict[str, int]:
        """method -> 1 (best), 2 (second), ...; equal methods share a rank.

        By mean; a method with more infinite cases never beats one with fewer. A method without any value ranks
        ``len(methods) + 1``, so that nothing undefined is ever called best.
        """
        sign = -1 if METRICS[metric].best == "high" else 1
        keys = {}
        for method in self.methods:
            found = self.summaries[stratum, class_name, metric, method]
            if found["n"] + found["infinite"]:
                mean = round(sign * found["mean"], 12) if found["n"] else math.inf
                keys[method] = (found["infinite"], mean)
        ranks = {method: 1 + sum(other < key for other in keys.values()) for method, key in keys.items()}
        return {method: ranks.get(method, len(self.methods) + 1) for method in self.methods}

    def places(self, stratum: str, class_name: str, metric: str) -> dict[str, int]:
        """method -> what to mark it as: 1 best, 2 second best of more than two, 0 nothing.

        Nothing is best where all methods are equal.
        """
        ranks = self.ranks(stratum, class_name, metric)
        marked = 0 if len(set(ranks.values())) == 1 else 2 if len(ranks) > 2 else 1
        return {method: rank if rank <= marked else 0 for method, rank in ranks.items()}


def metric_label(metric: str) -> str:
    """The metric's name, as ``|VE|`` where comparisons use absolute values."""
    return f"|{metric}|" if METRICS[metric].best == "zero" else metric


def compare_methods(
    methods: Sequence[Method],
    *,
    metrics: Sequence[str] | None = None,
    test: str = "wilcoxon",
    all_pairs: bool = False,
    strata: Mapping[str, str] | None = None,
    common_cases: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare the first method (baseline) with each of the others, or all pairs.

    Args:
        methods: at least two, of different names.
        metrics: keys of `METRICS`; `TABLE_METRICS` if None.
        test: key of `statistics.TESTS`.
        all_pairs: test every pair, not only those with the baseline.
        strata: case -> name of its stratum; strata come in the order of the mapping, after all cases.
        common_cases: restrict to the cases that every method has; otherwise a lacking case is an error.
        resamples: of bootstrap and permutation test.
        seed: of both.

    Raises:
        UsageError: the results cannot be compared, or an argument is out of range.
    """
    metrics = list(dict.fromkeys(TABLE_METRICS if metrics is None else metrics))
    _check_arguments(methods, metrics, test, resamples)
    paired = pair_values(methods, metrics, common_cases)
    groups = _groups(paired.cases, strata or {})
    names = [method.name for method in methods]
    pairs = list(combinations(names, 2)) if all_pairs else [(names[0], name) for name in names[1:]]

    tests: list[PairedTest] = []
    for stratum, members in groups.items():
        if len(members) > 1:
            for i, metric in enumerate(metrics):
                found = list(_test_metric(paired, i, metric, stratum, members, pairs, test, resamples, seed))
                corrected = holm([one.p for one in found])
                tests += [replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)]
    summaries = {
        (stratum, class_name, metric, method): summarise(paired.values[method][c, m, members].tolist())
        for stratum, members in groups.items()
        for c, class_name in enumerate(paired.classes)
        for m, metric in enumerate(metrics)
        for method in names
    }
    first = methods[0].results[0]
    return Comparison(
        methods=names,
        classes=paired.classes,
        metrics=metrics,
        strata=list(groups),
        cases=paired.cases,
        summaries=summaries,
        tests=tests,
        test=test,
        seed=seed,
        notes=[*paired.notes, *_test_notes(tests, test, groups, paired, metrics)],
        surface_definition=first.surface_definition,
        tolerance_mm=first.tolerance_mm,
        resamples=resamples,
        has_mean=paired.has_mean,
    )


def _check_arguments(methods: Sequence[Method], metrics: Sequence[str], test: str, resamples: int) -> None:
    """Raises UsageError for what no comparison can be made of."""
    names = [method.name for method in methods]
    if len(set(names)) < 2:
        raise UsageError(f"at least two methods are needed to compare, got {name_some(names)}")
    if len(set(names)) < len(names):
        raise UsageError(f"every method needs its own name, got {name_some(names)}")
    require_metrics(metrics)
    if not metrics:
        raise UsageError(f"no metric to compare; choose among {', '.join(METRICS)}")
    if test not in TESTS:
        raise UsageError(f"no test {test!r}; choose among {', '.join(TESTS)}")
    if resamples < 100:
        raise UsageError(f"{resamples} resamples are too few for an interval; take at least 100")


def _groups(cases: Sequence[str], strata: Mapping[str, str]) -> dict[str, NDArray[np.intp]]:
    """stratum -> indices of its cases, all cases first.

    Raises:
        UsageError: `strata` is given but lacks a case, or a stratum has no name.
    """
    groups = {ALL_CASES: np.arange(len(cases))}
    if not strata:
        return groups
    lacking = [case for case in cases if not strata.get(case)]
    if lacking:
        raise UsageError(f"no stratum is given for the cases {name_some(lacking)}")
    for stratum in dict.fromkeys(strata[case] for case in strata if case in set(cases)):
        groups[stratum] = np.array([i for i, case in enumerate(cases) if strata[case] == stratum])
    return groups


def _test_metric(
    paired: PairedValues,
    index: int,
    metric: str,
    stratum: str,
    members: NDArray[np.intp],
    pairs: Sequence[tuple[str, str]],
    test: str,
    resamples: int,
    seed: int,
) -> Iterator[PairedTest]:
    """The family of one metric in one stratum: every class and pair, not yet corrected."""
    for c, class_name in enumerate(paired.classes):
        for first, second in pairs:
            ours, theirs = (paired.values[method][c, index, members] for method in (first, second))
            found = paired_test(ours, theirs, test, resamples=resamples, seed=seed)
            yield PairedTest(metric, class_name, stratum, first, second, **found._asdict(), p_holm=math.nan)


def _test_notes(
    tests: Sequence[PairedTest],
    test: str,
    groups: Mapping[str, NDArray[np.intp]],
    paired: PairedValues,
    metrics: Sequence[str],
) -> list[str]:
    """What the tests could not use, in sentences; counts are those of all cases."""
    notes = []
    untested = [stratum for stratum, members in groups.items() if len(members) < 2]
    if untested:
        notes.append(f"strata of one case are summarised but not tested: {name_some(untested)}")
    small: dict[str, list[str]] = {}
    for one in tests:
        if one.unequal < MIN_PAIRS and test != "t":
            small.setdefault(f"{one.stratum or 'all cases'}, {one.class_name}", []).append(metric_label(one.metric))
    if small:
        where = name_some([f"{place} ({', '.join(dict.fromkeys(names))})" for place, names in small.items()])
        notes.append(f"fewer than {MIN_PAIRS} pairs that differ, so no p-value below 0.05 is possible: {where}")

    if infinite := _count_by_place(tests, lambda one: one.infinite):
        outcome = (
            "ranked by the test as the largest differences, left out of the mean difference and its interval"
            if test == "wilcoxon"
            else "left out of the test and of the mean difference, which do not see these failures"
        )
        notes.append(f"pairs with an infinite distance (one mask is empty) are {outcome}: {infinite}")

    def undefined_once(one: PairedTest) -> int:
        c, m = paired.classes.index(one.class_name), metrics.index(one.metric)
        first, second = (np.isnan(paired.values[method][c, m]) for method in (one.first, one.second))
        return int(np.count_nonzero(first != second))

    if unmatched := _count_by_place(tests, undefined_once):
        notes.append(
            "pairs left out of the test because only one of the two is undefined (one method found nothing where the"
            f" other found something): {unmatched}"
        )
    return notes


def _count_by_place(tests: Sequence[PairedTest], count: Callable[[PairedTest], int]) -> str:
    """ "lesion, B against A: HD95 3, ASSD 3; ..." of the tests of all cases whose count is not 0."""
    found: dict[str, list[str]] = {}
    for one in tests:
        if one.stratum == ALL_CASES and (number := count(one)):
            place = f"{one.class_name}, {one.second} against {one.first}"
            found.setdefault(place, []).append(f"{metric_label(one.metric)} {number}")
    return "; ".join(f"{place}: {', '.join(counts)}" for place, counts in found.items())
