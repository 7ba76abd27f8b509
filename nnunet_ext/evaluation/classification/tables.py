"""Tables of probabilities and of labels: read, checked, and matched by the name of the image."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.data.xray_dataset import KEY_COLUMNS
from nnunet_ext.utilities.datasets import relations
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """N images with a prediction and a row in the labels, in the order of the predictions."""

    classes: list[str]
    names: list[str]
    """as in the labels"""
    probabilities: Values
    """(N, C), in [0, 1]"""
    labels: Values
    """(N, C): 1 positive, 0 negative, nan unknown"""
    patients: list[str]
    """empty where unknown"""
    notes: list[str]
    """what was left out, or matched otherwise than by equal names"""


def read_scored_images(probabilities: Path, labels: Path, split: str | None) -> ScoredImages:
    """Match ``probabilities.csv`` of ``nnunet_ext classify`` with the ``labels.csv`` of a data set.

    Names must be equal, or become equal by one folder before every name of the predictions: that is how they differ
    after ``classify -i FOLDER``. Predictions of other splits are left out.

    Args:
        probabilities: columns ``image`` and one per class.
        labels: columns ``image``, ``patient`` and ``split`` (both may be absent), one per class; others are left out.
        split: only the images that the labels assign to it; None: all.

    Raises:
        UsageError: a fault in a table, or images of only one of them; names file, row or images, and the fix.
    """
    header, predicted = _read_table(probabilities, ["image"])
    classes = [column for column in header if column != "image"]
    if not classes:
        raise UsageError(f"{probabilities} has no column of a class beside image; give what nnunet_ext classify wrote")
    known_header, known = _read_table(labels, ["image", *classes, *(["split"] if split else [])])
    folder = _common_folder(list(predicted), known)
    pairs = _pairs(probabilities, labels, {folder + name: row for name, row in predicted.items()}, known, split)
    notes = [f"names of the predictions were looked up in {labels.name} with {folder} before them"] if folder else []
    others = [column for column in known_header if column not in (*KEY_COLUMNS, *classes)]
    if others:
        notes.append(f"columns of {labels.name} without a probability, left out: {', '.join(others)}")
    if len(pairs) < len(predicted):
        notes.append(f"{len(predicted) - len(pairs)} predictions of other splits than {split} are left out")
    return ScoredImages(
        classes,
        [row.values["image"] for _, row in pairs],
        np.array([[_probability(probabilities, row, name) for name in classes] for row, _ in pairs]),
        np.array([[_label(labels, row, name) for name in classes] for _, row in pairs]),
        [row.values.get("patient", "") for _, row in pairs],
        notes,
    )


def task_of_dataset(labels: Path) -> str | None:
    """The task that the ``dataset.json`` beside a table of labels names; None if there is none that names one."""
    file = labels.parent / "dataset.json"
    if not file.is_file():
        return None
    content = load_json(file)
    try:
        task = relations(content).get("classification", {}).get("task")
    except (AttributeError, TypeError, ValueError):
        raise UsageError(f'{file} is not a dataset.json with "nnunet_ext": {{"classification": {{...}}}}') from None
    return None if task is None else str(task)


@dataclass(frozen=True)
class _Row:
    line: int
    values: dict[str, str]


def _read_table(table: Path, columns: Sequence[str]) -> tuple[list[str], dict[str, _Row]]:
    """Header, and image -> row."""
    if not table.is_file():
        raise UsageError(f"{table} does not exist or is not a file")
    rows: dict[str, _Row] = {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            _check_header(table, header, columns)
            for values in filter(None, reader):
                if len(values) != len(header):
                    raise UsageError(
                        f"{table}, row {reader.line_num}: {len(values)} values; give {len(header)}, one per column"
                    )
                row = _Row(reader.line_num, {k: v.strip() for k, v in zip(header, values, strict=True)})
                first = rows.setdefault(row.values["image"], row)
                if first is not row:
                    raise UsageError(
                        f"{table}, row {row.line}: {row.values['image']} stands in row {first.line} too; remove one"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{table} is not a table of comma-separated values ({error})") from None
    if not rows:
        raise UsageError(f"{table} has no row")
    return header, rows


def _check_header(table: Path, header: list[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        raise UsageError(f"{table} lacks the columns {', '.join(missing)}; its first row is: {','.join(header)[:200]}")
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        raise UsageError(f"{table} has columns of the same name: {', '.join(repeated)}; rename or remove them")


def _common_folder(predicted: list[str], known: dict[str, _Row]) -> str:
    """The prefix ending in ``/`` that makes the most names known ones; "" if none is needed, or two are as good."""
    if any(name in known for name in predicted):
        return ""
    first = predicted[:10]  # enough to find it, and quick where no name of a long table fits
    prefixes = {name.removesuffix(end) for end in first for name in known if name.endswith(f"/{end}")}
    fitting = {prefix: sum(prefix + name in known for name in predicted) for prefix in prefixes}
    best = [prefix for prefix, number in fitting.items() if number == max(fitting.values())]
    return best[0] if len(best) == 1 else ""


def _pairs(
    probabilities: Path, labels: Path, predicted: dict[str, _Row], known: dict[str, _Row], split: str | None
) -> list[tuple[_Row, _Row]]:
    """Prediction and label of each image of the split, in the order of the predictions."""
    unknown = [name for name in predicted if name not in known]
    if unknown:
        raise UsageError(
            f"{len(unknown)} of {len(predicted)} images of {probabilities} have no row in {labels} ({_some(unknown)});"
            f" its names look like {next(iter(known))}: add their rows, or classify with -i {labels}"
        )
    wanted = [name for name, row in known.items() if split is None or row.values["split"] == split]
    if not wanted:
        splits = sorted({row.values["split"] for row in known.values()})
        raise UsageError(f"{labels} has no row with split={split}; it has: {', '.join(splits)}")
    absent = [name for name in wanted if name not in predicted]
    if absent:
        splits = sorted({known[name].values.get("split", "") for name in predicted})
        restrict = f"; all predictions are of split {splits[0]}: use --split {splits[0]}"
        fix = restrict if split is None and len(splits) == 1 and splits[0] else "; classify them too"
        place = f"{labels}, split {split}," if split else f"{labels}"
        raise UsageError(
            f"{len(absent)} of {len(wanted)} images of {place} have no row in {probabilities} ({_some(absent)}){fix}"
        )
    chosen = set(wanted)
    return [(row, known[name]) for name, row in predicted.items() if name in chosen]


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _probability(table: Path, row: _Row, column: str) -> float:
    text = row.values[column]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise UsageError(f"{table}, row {row.line}: {column}={text!r} is not a probability in [0, 1]")
    return value


def _label(table: Path, row: _Row, column: str) -> float:
    text = row.values[column]
    if text not in ("0", "1", "0.0", "1.0", ""):
        raise UsageError(f"{table}, row {row.line}: {column}={text!r} is not 0, 1 or empty (unknown)")
    return float(text) if text else math.nan
