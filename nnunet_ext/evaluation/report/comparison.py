"""What the report says about the differences between methods: ranked tables, tests, and both in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnunet_ext.evaluation.comparison.compare import ALL_CASES, Comparison, PairedTest, compare_methods, metric_label
from nnunet_ext.evaluation.comparison.pairing import Method
from nnunet_ext.evaluation.metrics import METRICS
from nnunet_ext.evaluation.report.inputs import Evaluated
from nnunet_ext.evaluation.results import MEAN_CLASS, spell
from nnunet_ext.utilities.errors import UsageError

ALPHA = 0.05
DIRECTIONS = {"high": "higher is better", "low": "lower is better", "zero": "closer to zero is better"}
LEFT_OUT = {"infinite": "inf.", "undefined": "undef."}


@dataclass(frozen=True)
class RankedCell:
    """One method's value of one metric: mean and deviation as text, what the mean leaves out, and "best" or "2nd"."""

    mean: str
    std: str
    left_out: str
    mark: str


@dataclass(frozen=True)
class RankedRow:
    """One metric of all methods."""

    label: str
    unit: str
    help: str
    direction: str
    cells: list[RankedCell]


@dataclass(frozen=True)
class TestRow:
    """One paired test as text."""

    label: str
    pair: str
    difference: str
    interval: str
    pairs: str
    effect: str
    p: str
    p_holm: str
    verdict: str


@dataclass(frozen=True)
class ComparisonTable:
    """Everything about one class."""

    title: str
    ranked: list[RankedRow]
    tests: list[TestRow]


@dataclass(frozen=True)
class ComparisonPage:
    """The comparison and its tables; `comparison` is None where there is none, and `note` says why."""

    comparison: Comparison | None
    note: str
    conclusions: list[str]
    tables: list[ComparisonTable]


def describe_comparison(methods: Mapping[str, Sequence[Evaluated]]) -> ComparisonPage:
    """Compare all methods with the first one, on the cases that all have."""
    try:
        comparison = compare_methods(
            [Method(name, tuple(one.result for one in found)) for name, found in methods.items()], common_cases=True
        )
    except UsageError as error:
        return ComparisonPage(None, f"These evaluations cannot be compared: {error}.", [], [])
    tables = [_table(comparison, class_name) for class_name in comparison.classes]
    return ComparisonPage(comparison, "", conclusions(comparison), tables)


def _table(comparison: Comparison, class_name: str) -> ComparisonTable:
    tests = [t for t in comparison.tests if t.class_name == class_name and t.stratum == ALL_CASES]
    ranked = [_ranked_row(comparison, class_name, metric) for metric in comparison.metrics]
    return ComparisonTable(
        class_title(class_name, comparison), ranked, [_test_row(test, len(comparison.cases)) for test in tests]
    )


def class_title(class_name: str, comparison: Comparison) -> str:
    """The class, or that it is the mean over all of them."""
    is_mean = class_name == MEAN_CLASS and len(comparison.classes) > 1
    return "Mean over classes" if is_mean else class_name


def _ranked_row(comparison: Comparison, class_name: str, metric: str) -> RankedRow:
    ranks = comparison.ranks(ALL_CASES, class_name, metric)
    cells = []
    for method in comparison.methods:
        found = comparison.summaries[ALL_CASES, class_name, metric, method]
        counts = [f"{found[key]} {text}" for key, text in LEFT_OUT.items() if found[key]]
        std = "" if math.isnan(found["std"]) else f"± {spell(metric, found['std'])}"
        cells.append(RankedCell(spell(metric, found["mean"]), std, ", ".join(counts), _mark(ranks, method)))
    kind = METRICS[metric]
    return RankedRow(metric_label(metric), kind.unit, kind.text, DIRECTIONS[kind.best], cells)


def _mark(ranks: Mapping[str, int], method: str) -> str:
    """Nothing is best where all are alike, and second only where there is a third."""
    if len(set(ranks.values())) == 1:
        return ""
    return {1: "best", 2: "2nd" if len(ranks) > 2 else ""}.get(ranks[method], "")


def _test_row(test: PairedTest, num_cases: int) -> TestRow:
    low, high = signed(test.metric, test.low), signed(test.metric, test.high)
    return TestRow(
        metric_label(test.metric),
        f"{test.second} − {test.first}",
        signed(test.metric, test.mean_difference),
        "–" if math.isnan(test.low) else f"{low} to {high}",
        f"{test.n} of {num_cases}",
        "–" if math.isnan(test.effect) else f"{test.effect:+.2f}".replace("-", "−"),
        spell_p(test.p),
        spell_p(test.p_holm),
        f"{test.better} better" if is_significant(test) else "",
    )


def is_significant(test: PairedTest) -> bool:
    """After correction, and with a direction."""
    return test.p_holm < ALPHA and test.better != ""


def conclusions(comparison: Comparison) -> list[str]:
    """For every tested pair, in which metrics which method is significantly better."""
    sentences = []
    tests = [test for test in comparison.tests if test.stratum == ALL_CASES]
    for first, second in dict.fromkeys((test.first, test.second) for test in tests):
        pair = [test for test in tests if (test.first, test.second) == (first, second)]
        parts = []
        for winner in (second, first):
            won = [test for test in pair if is_significant(test) and test.better == winner]
            if won:
                parts.append(f"{winner} is better in {_named(won, comparison)}")
        rest = sum(not is_significant(test) for test in pair)
        without = f"no significant difference in {rest} of {len(pair)} tests" if rest else ""
        sentences.append(f"{second} against {first}: {'; '.join([*parts, without] if without else parts)}.")
    return sentences


def _named(tests: Sequence[PairedTest], comparison: Comparison) -> str:
    """``DSC, NSD (lesion); DSC (lung)``; without the class where there is only one."""
    by_class: dict[str, list[str]] = {}
    for test in tests:
        by_class.setdefault(test.class_name, []).append(metric_label(test.metric))
    if len(comparison.classes) == 1:
        return ", ".join(next(iter(by_class.values())))
    named = {name: "mean over classes" if name == MEAN_CLASS else name for name in by_class}
    return "; ".join(f"{', '.join(metrics)} ({named[name]})" for name, metrics in by_class.items())


def signed(metric: str, value: float) -> str:
    """A difference with its sign, and a dash for what is undefined."""
    if math.isnan(value):
        return "–"
    return ("+" if value >= 0 else "−") + spell(metric, abs(value))


def spell_p(value: float) -> str:
    """3 decimals, ``< 0.001``, and a dash for what was not tested."""
    if math.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
