"""Strata of cases from a table: groups of a text column, or quantile groups of a numeric one."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunet_ext.evaluation.comparison.pairing import name_some
from nnunet_ext.utilities.errors import UsageError

CASE_COLUMN = "case"
MISSING = ("", "na", "n/a", "nan")


def read_strata(path: Path, column: str, cases: Sequence[str], bins: int = 3) -> dict[str, str]:
    """case -> name of its stratum, from a CSV file with the columns `CASE_COLUMN` and `column`.

    The strata come in order, the cases of each in the order of `cases`; see `group_values` for their names.

    Raises:
        UsageError: the file, a column, or the value of a case is missing, or a case is given twice.
    """
    values = _read_column(path, column)
    absent = [case for case in cases if case not in values]
    if absent:
        raise UsageError(
            f"{path} has no line for the cases {name_some(absent)}; its cases are {name_some(list(values))}"
        )
    empty = [case for case in cases if values[case].lower() in MISSING]
    if empty:
        raise UsageError(f"{path} has no value of {column!r} for the cases {name_some(empty)}")
    return group_values({case: values[case] for case in cases}, column, bins)


def group_values(values: Mapping[str, str], column: str, bins: int = 3) -> dict[str, str]:
    """case -> stratum, ordered by stratum.

    Text is its own stratum. Numbers of at most `bins` distinct values are strata too ("grade 2"); more are cut at
    quantiles into at most `bins` groups named by their smallest and largest value ("size 0.2-1.5").

    Raises:
        UsageError: `bins` < 2.
    """
    if bins < 2:
        raise UsageError(f"--bins is {bins}; at least 2 groups are needed")
    numbers = {case: _number(text) for case, text in values.items()}
    if not all(math.isfinite(number) for number in numbers.values()):
        return dict(sorted(values.items(), key=lambda item: item[1]))

    found = np.array(list(numbers.values()))
    if len(np.unique(found)) <= bins:
        ordered = sorted(numbers.items(), key=lambda item: item[1])
        return {case: f"{column} {_spell(number)}" for case, number in ordered}
    group = np.digitize(found, np.quantile(found, np.arange(1, bins) / bins), right=True)
    names = {int(g): _range_name(column, found[group == g]) for g in np.unique(group)}
    named = sorted(zip(group, values, strict=True), key=lambda item: item[0])
    return {case: names[int(g)] for g, case in named}


def _read_column(path: Path, column: str) -> dict[str, str]:
    """case -> text of `column`."""
    if not path.is_file():
        raise UsageError(f"{path} does not exist; it should be a CSV file with the columns {CASE_COLUMN} and {column}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as CSV in UTF-8 ({error}); save it as such") from None
    for name in (CASE_COLUMN, column):
        if name not in (reader.fieldnames or []):
            raise UsageError(
                f"{path} has no column {name!r}; it has {name_some(list(reader.fieldnames or []))} (comma separated)"
            )
    values: dict[str, str] = {}
    for row in rows:
        case = (row[CASE_COLUMN] or "").strip()
        if not case and not any(text for text in row.values()):
            continue  # spreadsheets leave empty lines at the end
        if not case:
            raise UsageError(f"{path} has a line without a case: {', '.join(str(text) for text in row.values())}")
        if case in values:
            raise UsageError(f"{path} has more than one line for case {case}")
        values[case] = (row[column] or "").strip()
    return values


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _range_name(column: str, values: np.typing.NDArray[np.float64]) -> str:
    low, high = float(values.min()), float(values.max())
    if low == high:
        return f"{column} {_spell(low)}"
    return f"{column} {_spell(low)}{' to ' if low < 0 else '-'}{_spell(high)}"


def _spell(number: float) -> str:
    """All digits that tell a number from others: 20240101 is not 2.02401e+07."""
    return f"{number:.15g}"
