"""What the report says about evaluations: headline, summaries, failures, the table of cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunet_ext.evaluation.comparison.pairing import mean_of_defined
from nnunet_ext.evaluation.metrics import METRICS
from nnunet_ext.evaluation.report.inputs import Evaluated
from nnunet_ext.evaluation.results import COLUMNS, MEAN_CLASS, EvaluationResult, Row, spell, summarise

GROUPS = {
    "overlap": ("Overlap", ("DSC", "IoU", "SEN", "SPE", "PPV", "MAE")),
    "surface": ("Surface distance", ("NSD", "HD", "HD95", "ASD", "ASD_ref", "ASSD")),
    "volume": ("Volume", ("VE", "RVE")),
    "lesions": ("Lesions", ("LSEN", "LPPV", "LF1")),
}
"""Every metric, by what it measures: name of the group -> title and metrics."""
ALWAYS_SHOWN = ("DSC", "NSD", "HD95", "SEN", "PPV", "reference_ml", "prediction_ml")
"""Columns of the table of cases that no switch hides."""
COUNTS = {
    "reference_lesions": ("Lesions", "lesions of the reference"),
    "prediction_lesions": ("Predicted", "lesions of the prediction"),
    "missed_lesions": ("Missed", "lesions of the reference that the prediction does not touch"),
    "false_lesions": ("False", "lesions of the prediction that touch no lesion of the reference"),
}
VOLUME_LABELS = {"reference_ml": "Reference", "prediction_ml": "Prediction"}
MAX_LISTED = 20
MAX_CLASSES = 12
"""More are in the files, not in tables and charts of their own."""
MAX_WIDE_ROWS = 1500
"""With more rows the table of cases has only the columns that are always shown."""
MEAN_TITLE = "Mean over classes"


@dataclass(frozen=True)
class Column:
    """Of the table of cases; `group` is a key of `GROUPS`, or "" if it is always shown."""

    key: str
    label: str
    unit: str
    help: str
    group: str


def table_columns(num_rows: int = 0) -> list[Column]:
    """Those always shown, then group by group, unless there are more than `MAX_WIDE_ROWS` rows."""
    always = [_column(key, "") for key in ALWAYS_SHOWN]
    if num_rows > MAX_WIDE_ROWS:
        return always
    switched = []
    for group, (_, metrics) in GROUPS.items():
        keys = [*metrics, *(COUNTS if group == "lesions" else ())]
        switched += [_column(key, group) for key in keys if key not in ALWAYS_SHOWN]
    return always + switched


def switched_columns(columns: Sequence[Column], identity_columns: int) -> dict[str, tuple[int, int]]:
    """group -> first and last place (from 1) of its columns, which follow those that name the case."""
    places: dict[str, list[int]] = {}
    for place, column in enumerate(columns, start=identity_columns + 1):
        if column.group:
            places.setdefault(column.group, []).append(place)
    return {group: (found[0], found[-1]) for group, found in places.items()}


def _column(key: str, group: str) -> Column:
    if key in COUNTS:
        return Column(key, COUNTS[key][0], "", COUNTS[key][1], group)
    if key in VOLUME_LABELS:
        return Column(key, VOLUME_LABELS[key], "mL", f"volume of the {VOLUME_LABELS[key].lower()}", group)
    return Column(key, key, METRICS[key].unit, METRICS[key].text, group)


def spell_cell(key: str, value: float) -> str:
    """A metric as `spell` does it; millilitres with 2 decimals; counts (with fractions if averaged)."""
    if key in METRICS:
        return spell(key, value)
    if math.isnan(value):
        return "–"
    return f"{value:.2f}" if key in VOLUME_LABELS else f"{value:.4g}"


def merge_repeats(evaluated: Sequence[Evaluated]) -> EvaluationResult:
    """One result: the cases of all, numbers of a case that several have averaged (nan left out, inf if any is)."""
    first = evaluated[0].result
    if len(evaluated) == 1:
        return first
    grouped: dict[tuple[str, str], list[Row]] = {}
    for row in (row for one in evaluated for row in one.result.rows):
        grouped.setdefault((row["case"], row["class"]), []).append(row)
    keys = COLUMNS[2:]
    rows = []
    for (case, class_name), repeats in sorted(grouped.items(), key=lambda item: item[0][0]):
        means = mean_of_defined(np.array([[row[key] for key in keys] for row in repeats], dtype=float), axis=0)
        rows.append({"case": case, "class": class_name, **dict(zip(keys, means.tolist(), strict=True))})
    missing = sorted({case for one in evaluated for case in one.result.missing})
    return replace(first, rows=rows, missing=missing)


@dataclass(frozen=True)
class SummaryTable:
    """Statistics of one class: (title of the group, metric -> `summarise`)."""

    title: str
    groups: list[tuple[str, dict[str, dict[str, float]]]]


def summary_with_mean(
    result: EvaluationResult, metrics: Sequence[str] = tuple(METRICS)
) -> dict[str, dict[str, dict[str, float]]]:
    """class -> metric -> `summarise`, and `MEAN_TITLE` last where there are several classes, none of them a "mean"."""
    summary = {name: {m: found[m] for m in metrics} for name, found in result.summary().items()}
    if len(summary) > 1 and MEAN_CLASS not in summary:
        summary[MEAN_TITLE] = {m: summarise(list(result.mean_over_classes(m).values())) for m in metrics}
    return summary


def summary_tables(result: EvaluationResult) -> list[SummaryTable]:
    """One per class that is shown (`shown_classes`), and of the means over classes where there are several."""
    summary = summary_with_mean(result)
    shown = [*shown_classes(result.classes), *(name for name in summary if name not in result.classes)]
    return [
        SummaryTable(name, [(title, {m: summary[name][m] for m in members}) for title, members in GROUPS.values()])
        for name in shown
    ]


def shown_classes(classes: Sequence[str]) -> list[str]:
    """The first `MAX_CLASSES`: the page would be slow with dozens of tables and charts."""
    return list(classes[:MAX_CLASSES])


def uneven_cases(methods: Sequence[MethodPage]) -> str:
    """A sentence where the methods have different cases, so that their scores cannot be compared; else empty."""
    cases = [set(method.result.cases) for method in methods]
    if not cases or all(found == cases[0] for found in cases):
        return ""
    counts = ", ".join(f"{method.name} {len(found)}" for method, found in zip(methods, cases, strict=True))
    return (
        f"The methods were evaluated on different cases ({counts}, {len(set.intersection(*cases))} of them in common):"
        " each has its scores and charts over its own cases, which do not rank the methods."
    )


@dataclass(frozen=True)
class Failures:
    """Cases of one class by how they went entirely wrong in an evaluation, or left nothing to measure.

    Names of cases in order; where several evaluations have the case with the number of those it went wrong in:
    "case_01 in 1 of 2 evaluations". `failed` are the bare names of those missed or beside.
    """

    class_name: str
    cases: int
    present: int
    missed: list[str]
    beside: list[str]
    invented: list[str]
    failed: list[str]
    both_empty: int

    @property
    def often_absent(self) -> bool:
        """Whether fewer than half of the references have the class, so that means rest on few cases."""
        return 2 * self.present < self.cases


def find_failures(results: Sequence[EvaluationResult]) -> list[Failures]:
    """Per class: missed (no prediction of it), beside (predicted, but nowhere on the reference), invented, both empty.

    The results are repeats or folds. A case that fails in one of its repeats is named; it counts as empty in both
    where it is in all of them.
    """
    found = []
    for name in results[0].classes:
        outcomes: dict[str, list[str]] = {}
        for row in (row for result in results for row in result.rows if row["class"] == name):
            outcomes.setdefault(row["case"], []).append(_outcome(row))
        outcomes = dict(sorted(outcomes.items()))
        kinds = {
            kind: [
                _in_evaluations(case, each.count(kind), len(each)) for case, each in outcomes.items() if kind in each
            ]
            for kind in ("missed", "beside", "invented")
        }
        failed = [case for case, each in outcomes.items() if "missed" in each or "beside" in each]
        absent = [each for each in outcomes.values() if {"invented", "both empty"} & set(each)]
        both_empty = sum(set(each) == {"both empty"} for each in absent)
        present = len(outcomes) - len(absent)
        found.append(Failures(name, len(outcomes), present, **kinds, failed=failed, both_empty=both_empty))
    return found


def _outcome(row: Row) -> str:
    reference, prediction = row["TP"] + row["FN"] > 0, row["TP"] + row["FP"] > 0
    if not reference:
        return "invented" if prediction else "both empty"
    if row["TP"] == 0:
        return "beside" if prediction else "missed"
    return "found"


def _in_evaluations(case: str, count: int, evaluations: int) -> str:
    return case if evaluations == 1 else f"{case} in {count} of {evaluations} evaluations"


def left_out_cases(evaluated: Evaluated) -> list[str]:
    """References that ``--only-predicted`` left out, as far as their folder is still there."""
    folder, ending = Path(evaluated.result.reference), evaluated.result.file_ending
    if not evaluated.result.only_predicted or not folder.is_dir():
        return []
    names = {p.name[: -len(ending)] for p in folder.iterdir() if p.name.endswith(ending) and p.name[0] != "."}
    return sorted(names - set(evaluated.result.cases))


def listed(names: Sequence[str]) -> str:
    """At most `MAX_LISTED` names, and how many more there are."""
    more = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class MethodPage:
    """What the page says about one method: its folders, its merged result, and what follows from that."""

    name: str
    evaluated: list[Evaluated]
    result: EvaluationResult
    failures: list[Failures]
    left_out: list[str]

    @property
    def scoring(self) -> str:
        """NSD's tolerance and the surface definition, in a sentence."""
        return self.result.scoring()

    @property
    def failed(self) -> list[str]:
        """Cases that failed entirely in one class or more of one evaluation or more, in order."""
        return sorted({case for found in self.failures for case in found.failed})

    @property
    def repeated(self) -> bool:
        """Whether a case is in more than one evaluation, so that its numbers are averages."""
        return sum(len(one.result.cases) for one in self.evaluated) > len(self.result.cases)

    @property
    def headline(self) -> list[tuple[str, dict[str, dict[str, float]]]]:
        """(class, metric -> statistics) of DSC and HD95; of many classes their mean and the first `MAX_CLASSES`."""
        summary = summary_with_mean(self.result, ("DSC", "HD95"))
        shown = shown_classes(self.result.classes)
        means = [MEAN_TITLE] if MEAN_TITLE in summary and len(shown) < len(self.result.classes) else []
        return [(name, summary[name]) for name in (*means, *shown)]


def describe_methods(methods: Mapping[str, list[Evaluated]]) -> list[MethodPage]:
    """One page part per name."""
    pages = []
    for name, evaluated in methods.items():
        result = merge_repeats(evaluated)
        left_out = sorted({case for one in evaluated for case in left_out_cases(one)} - set(result.cases))
        pages.append(MethodPage(name, evaluated, result, find_failures([one.result for one in evaluated]), left_out))
    return pages


def case_rows(methods: Sequence[MethodPage]) -> list[tuple[str, Row]]:
    """(method, row) of the table of cases: by case, then class, so that the methods stand below each other."""
    order: dict[str, int] = {}
    for method in methods:
        for name in method.result.classes:
            order.setdefault(name, len(order))
    rows = [(method.name, row) for method in methods for row in method.result.rows]
    return sorted(rows, key=lambda item: (item[1]["case"], order[item[1]["class"]]))


def evaluate_command(evaluated: Evaluated) -> list[str]:
    """The command that writes this evaluation anew."""
    result = evaluated.result
    prediction, folder = Path(result.prediction), evaluated.folder
    if evaluated.subsets is not None:
        prediction, folder = prediction.parent, folder.parent
    command = ["nnunet_ext", "evaluate", result.reference, str(prediction)]
    command += ["--surface-definition", result.surface_definition, "--nsd-tolerance", f"{result.tolerance_mm:g}"]
    labels = [name for name, value in result.labels.items() if isinstance(value, int)]
    regions = [f"{n}={','.join(map(str, v))}" for n, v in result.labels.items() if isinstance(v, list | tuple)]
    command += ["--labels", *labels] if labels else []
    command += ["--regions", *regions] if regions else []
    command += ["--only-predicted"] if result.only_predicted else []
    command += ["--allow-missing"] if result.missing else []
    return command if folder == prediction else [*command, "-o", str(folder)]
