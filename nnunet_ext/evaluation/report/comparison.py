"""What the report says about the differences between methods: ranked tables, tests, and both in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.evaluation.comparison.compare import (
    ALL_CASES,
    ALPHA,
    Comparison,
    PairedTest,
    compare_methods,
    metric_label,
)
from nnunet_ext.evaluation.comparison.pairing import Method, compared_cases
from nnunet_ext.evaluation.comparison.strata import read_strata
from nnunet_ext.evaluation.comparison.tables import spell_p, stratum_title
from nnunet_ext.evaluation.metrics import METRICS, require_metrics
from nnunet_ext.evaluation.report.evaluation import MEAN_TITLE, shown_classes
from nnunet_ext.evaluation.report.inputs import Evaluated
from nnunet_ext.evaluation.results import MEAN_CLASS, spell
from nnunet_ext.utilities.errors import UsageError

DIRECTIONS = {"high": "higher is better", "low": "lower is better", "zero": "closer to zero is better"}
LEFT_OUT = {"infinite": "inf.", "undefined": "undef."}
MARKS = {0: "", 1: "best", 2: "2nd"}


@dataclass(frozen=True)
class ComparisonOptions:
    """What can be chosen about a comparison; as the options of these names of ``nnunet_ext compare``.

    `strata` is a CSV file, and `by` its column; both or neither.
    """

    metrics: Sequence[str] | None = None
    test: str = "wilcoxon"
    all_pairs: bool = False
    strata: Path | None = None
    by: str | None = None
    bins: int = 3

    @property
    def arguments(self) -> list[str]:
        """On the command line; nothing for defaults."""
        found = ["--metrics", *self.metrics] if self.metrics else []
        found += ["--test", self.test] if self.test != "wilcoxon" else []
        found += ["--all-pairs"] if self.all_pairs else []
        if self.strata and self.by:
            found += ["--strata", str(self.strata.resolve()), "--by", self.by]
            found += ["--bins", str(self.bins)] if self.bins != 3 else []
        return found


DEFAULTS = ComparisonOptions()


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
    """Everything about one class in one stratum."""

    title: str
    ranked: list[RankedRow]
    tests: list[TestRow]


@dataclass(frozen=True)
class Stratum:
    """One stratum (all cases have no title): the result in sentences, and a table per class that is shown."""

    title: str
    conclusions: list[str]
    tables: list[ComparisonTable]


@dataclass(frozen=True)
class ComparisonPage:
    """The comparison and its strata, all cases first; `comparison` is None where there is none, and `note` says why."""

    comparison: Comparison | None
    note: str
    strata: list[Stratum]


def describe_comparison(
    methods: Mapping[str, Sequence[Evaluated]], options: ComparisonOptions = DEFAULTS
) -> ComparisonPage:
    """Compare all methods with the first one, or every pair, on the cases that all have.

    Raises:
        UsageError: an option that is out of range, or strata that do not fit the cases.
    """
    require_metrics(options.metrics or [])
    compared = [Method(name, tuple(one.result for one in found)) for name, found in methods.items()]
    try:
        cases = compared_cases(compared, common_cases=True)
    except UsageError as error:
        return _incomparable(error)
    strata = None
    if options.strata and options.by:
        strata = read_strata(options.strata, options.by, cases, options.bins)
    try:
        comparison = compare_methods(
            compared,
            metrics=options.metrics,
            test=options.test,
            all_pairs=options.all_pairs,
            strata=strata,
            common_cases=True,
        )
    except UsageError as error:
        return _incomparable(error)
    return ComparisonPage(comparison, "", [_stratum(comparison, stratum) for stratum in comparison.strata])


def _incomparable(error: UsageError) -> ComparisonPage:
    return ComparisonPage(None, f"These evaluations cannot be compared: {error}.", [])


def _stratum(comparison: Comparison, stratum: str) -> Stratum:
    title = "" if stratum == ALL_CASES else stratum_title(comparison, stratum)
    tables = [_table(comparison, stratum, class_name) for class_name in compared_classes(comparison)]
    return Stratum(title, conclusions(comparison, stratum), tables)


def compared_classes(comparison: Comparison) -> list[str]:
    """Those with tables: all, or of many the mean over all, if there is one, and the first of them."""
    *classes, last = comparison.classes
    if not comparison.has_mean:
        return shown_classes([*classes, last])
    shown = shown_classes(classes)
    return [*shown, last] if len(shown) == len(classes) else [last, *shown]


def _table(comparison: Comparison, stratum: str, class_name: str) -> ComparisonTable:
    tests = [t for t in comparison.tests if t.class_name == class_name and t.stratum == stratum]
    ranked = [_ranked_row(comparison, stratum, class_name, metric) for metric in comparison.metrics]
    rows = [_test_row(test, comparison.size(stratum)) for test in tests]
    return ComparisonTable(class_title(class_name, comparison), ranked, rows)


def class_title(class_name: str, comparison: Comparison) -> str:
    """The class, or that it is the mean over all of them (a class may be called "mean" itself)."""
    return MEAN_TITLE if comparison.has_mean and class_name == MEAN_CLASS else class_name


def _ranked_row(comparison: Comparison, stratum: str, class_name: str, metric: str) -> RankedRow:
    places = comparison.places(stratum, class_name, metric)
    cells = []
    for method in comparison.methods:
        found = comparison.summaries[stratum, class_name, metric, method]
        counts = ", ".join(f"{found[key]} {text}" for key, text in LEFT_OUT.items() if found[key])
        std = "" if math.isnan(found["std"]) else f"± {spell(metric, found['std'])}"
        left_out = f"({counts})" if counts else ""
        cells.append(RankedCell(spell(metric, found["mean"]), std, left_out, MARKS[places[method]]))
    kind = METRICS[metric]
    return RankedRow(metric_label(metric), kind.unit, kind.text, DIRECTIONS[kind.best], cells)


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


def conclusions(comparison: Comparison, stratum: str = ALL_CASES) -> list[str]:
    """For every tested pair, in which metrics which method is significantly better."""
    sentences = []
    tests = [test for test in comparison.tests if test.stratum == stratum]
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
    """``DSC, NSD (lesion); DSC (lung)``; without the class where there is only one, and of many those shown."""
    by_class: dict[str, list[str]] = {}
    for test in tests:
        by_class.setdefault(test.class_name, []).append(metric_label(test.metric))
    if len(comparison.classes) == 1:
        return ", ".join(next(iter(by_class.values())))
    shown = {name: class_title(name, comparison) for name in compared_classes(comparison) if name in by_class}
    titles = {name: title if title == name else title.lower() for name, title in shown.items()}
    parts = [f"{', '.join(by_class[name])} ({title})" for name, title in titles.items()]
    more = len(by_class) - len(titles)
    return "; ".join([*parts, f"{more} other class{'es' * (more > 1)}"] if more else parts)


def signed(metric: str, value: float) -> str:
    """A difference with its sign, and a dash for what is undefined."""
    if math.isnan(value):
        return "–"
    return ("+" if value >= 0 else "−") + spell(metric, abs(value))
