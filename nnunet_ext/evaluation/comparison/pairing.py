"""The same cases of several methods, side by side: names, what must agree, what is averaged, what that leaves out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.evaluation.metrics import METRICS
from nnunet_ext.evaluation.results import MEAN_CLASS, EvaluationResult
from nnunet_ext.utilities.errors import UsageError

MAX_NAMED = 10


@dataclass(frozen=True)
class Method:
    """A method and what ``nnunet_ext evaluate`` found of it.

    Several results are repeats (seeds), whose values of one case are averaged, or folds, whose cases are pooled.
    """

    name: str
    results: tuple[EvaluationResult, ...]

    @property
    def cases(self) -> set[str]:
        """Names of the cases of any result."""
        return {case for result in self.results for case in result.cases}


@dataclass(frozen=True)
class PairedValues:
    """Values of every method for the same classes, metrics and cases.

    Attributes:
        cases: sorted.
        classes: in the order of the first result; `MEAN_CLASS` last where there is more than one.
        values: method -> array of shape (classes, metrics, cases): nan undefined, inf infinite, absolute for metrics
            whose best value is zero.
        notes: what differs, what was averaged, what was left out.
        has_mean: whether the last class is `MEAN_CLASS`, the mean over the others, and no class of that name.
    """

    cases: list[str]
    classes: list[str]
    values: dict[str, NDArray[np.float64]]
    notes: list[str]
    has_mean: bool


def split_name(text: str) -> tuple[str, Path]:
    """``NAME=FOLDER`` or ``FOLDER`` (then the name is empty).

    What exists is a folder, even with a "=" in its path.

    Raises:
        UsageError: the name or the folder is empty.
    """
    name, equals, folder = text.partition("=")
    if text and (not equals or Path(text).exists()):
        return "", Path(text)
    if not name or not folder:
        raise UsageError(f"{text!r} is not [NAME=]FOLDER: name or folder is empty")
    return name, Path(folder)


def named_folders(
    texts: Sequence[str | Path], label: Callable[[Path], str] = lambda folder: folder.name
) -> dict[str, list[Path]]:
    """Name -> its folders, resolved, from ``[NAME=]FOLDER`` each (`split_name`), names in order of appearance.

    A folder without a name is called by its `label`; where two would be called the same, or as a chosen name, all
    folders without a name are called by as much of the end of their path as tells them apart.

    Raises:
        UsageError: an empty name or folder, or a folder that is given twice for one name.
    """
    given = [(name, folder.resolve()) for name, folder in (split_name(str(text)) for text in texts)]
    if len(set(given)) < len(given):
        repeated = next(entry for entry in given if given.count(entry) > 1)
        raise UsageError(f"{repeated[1]} is given twice{f' for {repeated[0]}' if repeated[0] else ''}; name it once")
    chosen = {name for name, _ in given}
    unnamed = [folder for name, folder in given if not name]
    labels = [label(folder) for folder in unnamed]
    for depth in range(1, 1 + max((len(folder.parts) for folder in unnamed), default=0)):
        if len(set(labels)) == len(labels) and chosen.isdisjoint(labels):
            break
        labels = ["/".join(folder.parts[-depth:]) for folder in unnamed]
    names = iter(labels)
    grouped: dict[str, list[Path]] = {}
    for name, folder in given:
        grouped.setdefault(name or next(names), []).append(folder)
    return grouped


def pair_values(methods: Sequence[Method], metrics: Sequence[str], common_cases: bool = False) -> PairedValues:
    """Check that the methods can be compared, average repeats, add the mean over classes.

    A case's value is the mean over the method's results that have the case: nan left out (and noted), inf if any is
    inf. The mean over classes is taken of these in the same way.

    Raises:
        UsageError: surface definition, tolerance, classes, references or cases differ, or fewer than two cases.
    """
    check_definitions(methods)
    check_references(methods)
    cases = compared_cases(methods, common_cases)
    classes = methods[0].results[0].classes
    notes = [*_reference_notes(methods), *_case_notes(methods, cases)]
    values = {}
    for method in methods:
        values[method.name], skipped = _mean_of_repeats(method, cases, classes, metrics)
        notes += _repeat_notes(method, cases, skipped)
    if len({max(_results_per_case(method, cases)) for method in methods}) > 1:
        notes.append(
            "the methods have different numbers of results per case: an average over more results is steadier, and is"
            " infinite or defined more often"
        )
    has_mean = len(classes) > 1 and MEAN_CLASS not in classes
    if len(classes) > 1 and not has_mean:
        notes.append(f'no mean over classes, since a class is named "{MEAN_CLASS}"')
    if has_mean:
        notes.append(f'"{MEAN_CLASS}" is the mean over the classes of a case, undefined ones left out')
        classes = [*classes, MEAN_CLASS]
        values = {name: np.concatenate([v, mean_of_defined(v, axis=0)[None]]) for name, v in values.items()}
    return PairedValues(cases, classes, values, notes, has_mean)


def compared_cases(methods: Sequence[Method], common_cases: bool = False) -> list[str]:
    """The cases of all methods, sorted; with `common_cases` those that every method has.

    Raises:
        UsageError: a method lacks cases and `common_cases` is False, or fewer than two cases are left.
    """
    every = sorted(set().union(*(method.cases for method in methods)))
    lacking = {method.name: sorted(set(every) - method.cases) for method in methods}
    common = [case for case in every if not any(case in cases for cases in lacking.values())]
    if len(common) < len(every) and not common_cases:
        listed = "; ".join(f"{name} lacks {name_some(cases)}" for name, cases in lacking.items() if cases)
        raise UsageError(f"{listed}. Evaluate these too, or restrict to the {len(common)} common cases: --common-cases")
    if len(common) < 2:
        raise UsageError(f"{len(common)} cases to compare ({name_some(common)}); at least 2 are needed")
    return common


def mean_of_defined(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Mean along `axis` without nan; inf if any is inf, nan where all are nan."""
    defined = ~np.isnan(values)
    count = defined.sum(axis)
    total = np.where(defined, values, 0.0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def name_some(names: Sequence[str]) -> str:
    """The names, comma separated, at most `MAX_NAMED` of them."""
    rest = len(names) - MAX_NAMED
    return (", ".join(names[:MAX_NAMED]) or "none") + (f" and {rest} more" if rest > 0 else "")


def _results(methods: Sequence[Method]) -> Iterator[tuple[str, EvaluationResult]]:
    """Every result with a name for messages."""
    for method in methods:
        for result in method.results:
            yield f"{method.name} ({result.prediction})", result


def check_definitions(methods: Sequence[Method]) -> None:
    """Raises UsageError where two results were measured differently."""
    (first_name, first), *others = _results(methods)
    for name, result in others:
        for what, ours, theirs in (
            ("surface definition", first.surface_definition, result.surface_definition),
            ("NSD tolerance", f"{first.tolerance_mm:g} mm", f"{result.tolerance_mm:g} mm"),
        ):
            if ours != theirs:
                raise UsageError(
                    f"the {what} is {ours} in {first_name} but {theirs} in {name}; evaluate both with the same {what}"
                )
        if set(result.classes) != set(first.classes):
            raise UsageError(
                f"{first_name} has the classes {name_some(first.classes)}, but {name} has {name_some(result.classes)};"
                " evaluate both with the same dataset.json"
            )


def check_references(methods: Sequence[Method]) -> None:
    """Raises UsageError where the reference of a case has another number of voxels in another result."""
    seen: dict[tuple[str, str], tuple[float, str]] = {}
    for name, result in _results(methods):
        for row in result.rows:
            voxels = row["TP"] + row["FN"]
            known, known_name = seen.setdefault((row["case"], row["class"]), (voxels, name))
            if voxels != known:
                raise UsageError(
                    f"the reference of case {row['case']}, class {row['class']}, has {known:.0f} voxels in {known_name}"
                    f" but {voxels:.0f} in {name}; evaluate both against the same references"
                )


def _mean_of_repeats(
    method: Method, cases: Sequence[str], classes: Sequence[str], metrics: Sequence[str]
) -> tuple[NDArray[np.float64], list[str]]:
    """Values of shape (classes, metrics, cases), and the cases where a nan repeat was left out of an average."""
    case_index = {case: i for i, case in enumerate(cases)}
    class_index = {name: i for i, name in enumerate(classes)}
    values = np.full((len(method.results), len(classes), len(metrics), len(cases)), math.nan)
    present = np.zeros(values.shape, dtype=bool)
    for i, result in enumerate(method.results):
        for row in result.rows:
            if row["case"] in case_index:
                place = (i, class_index[row["class"]], slice(None), case_index[row["case"]])
                values[place] = [abs(row[m]) if METRICS[m].best == "zero" else row[m] for m in metrics]
                present[place] = True
    undefined = present & np.isnan(values)
    skipped = (undefined.any(0) & (present & ~undefined).any(0)).any((0, 1))
    return mean_of_defined(values, axis=0), [case for case, skip in zip(cases, skipped, strict=True) if skip]


def _results_per_case(method: Method, cases: Sequence[str]) -> list[int]:
    """How many results of the method have each case."""
    counts = Counter(case for result in method.results for case in result.cases)
    return [counts[case] for case in cases]


def _reference_notes(methods: Sequence[Method]) -> list[str]:
    """The folders of references, where they differ by name."""
    folders = list(dict.fromkeys(result.reference for _, result in _results(methods)))
    if len(folders) == 1:
        return []
    return [f"the references are of the same size but in different folders: {name_some(folders)}"]


def _case_notes(methods: Sequence[Method], cases: Sequence[str]) -> list[str]:
    """What is restricted to common cases, and which predictions are missing."""
    notes = []
    left_out = sorted(set().union(*(method.cases for method in methods)) - set(cases))
    if left_out:
        notes.append(f"restricted to the {len(cases)} common cases; left out: {name_some(left_out)}")
    for method in methods:
        missing = sorted({case for result in method.results for case in result.missing} & set(cases))
        if missing:
            notes.append(f"{method.name}: no prediction, scored as an empty one: {name_some(missing)}")
    return notes


def _repeat_notes(method: Method, cases: Sequence[str], skipped: Sequence[str]) -> list[str]:
    """How several results of a method were put together."""
    if len(method.results) == 1:
        return []
    counts = _results_per_case(method, cases)
    low, high = min(counts), max(counts)
    how = "cases pooled, one result per case"
    if high > 1:
        how = f"values of a case averaged over {high} results" if low == high else f"{low} to {high} results per case"
    notes = [f"{method.name}: {len(method.results)} results, {how}"]
    if skipped:
        notes.append(
            f"{method.name}: undefined repeats left out of the averages of {len(skipped)} cases: {name_some(skipped)}"
        )
    return notes
