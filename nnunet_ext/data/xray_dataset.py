"""X-rays with image-level labels: the raw data set, read and checked as a whole before any work.

``$nnUNet_raw/Dataset700_Name/dataset.json`` names task, classes and table; the table has one row per image::

    image,patient,split,healthy,pneumonia
    imagesTr/a.png,p1,train,1,0
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.utilities.datasets import dataset_id, raw_folder, relations
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json

TASKS = ("multiclass", "multilabel")
SPLITS = ("train", "val", "test")
KEY_COLUMNS = ("image", "patient", "split")


@dataclass(frozen=True, eq=False)
class XrayTable:
    """What is known of each of N X-rays: file, patient, split and which of C classes it shows."""

    name: str
    """``Dataset700_Name``"""
    task: str
    """``multiclass``: exactly one class per image; ``multilabel``: any number"""
    classes: tuple[str, ...]
    image_names: tuple[str, ...]
    """paths as in the table: relative to the raw data-set folder, or absolute"""
    patients: tuple[str, ...]
    splits: tuple[str, ...]
    labels: NDArray[np.uint8]
    """(N, C), 0 or 1"""
    fingerprint: str
    """hex digest of labels, classes and the images' sizes and times of change: another one means other data"""

    def __len__(self) -> int:
        return len(self.image_names)

    def indices(self, split: str) -> NDArray[np.int64]:
        """Rows of a split, ascending; empty if it has none."""
        return np.flatnonzero(np.array(self.splits) == split)

    def class_counts(self, split: str) -> dict[str, int]:
        """Images of a split per class, in the order of the classes."""
        counts = self.labels[self.indices(split)].sum(0, dtype=np.int64)
        return dict(zip(self.classes, counts.tolist(), strict=True))

    def patients_in_several_splits(self) -> list[str]:
        """Patients whose images leak from one split into another, sorted; images without a patient do not count."""
        pairs = {pair for pair in zip(self.patients, self.splits, strict=True) if pair[0]}
        return sorted(patient for patient, splits in Counter(pair[0] for pair in pairs).items() if splits > 1)


@dataclass(frozen=True, eq=False)
class XrayDataset(XrayTable):
    """An X-ray data set in ``nnUNet_raw``, whose images are there (but not yet opened)."""

    folder: Path

    def image_paths(self) -> list[Path]:
        """The N image files."""
        return [self.folder / name for name in self.image_names]


def read_xray_dataset(name_or_id: str | int) -> XrayDataset:
    """Read and check ``dataset.json`` and the table of labels, and see that every image is there.

    Raises:
        UsageError: no such data set, not one with image-level labels, or a fault in the table; names file, row and fix.
    """
    folder = raw_folder(name_or_id)
    task, classes, table = _classification(folder)
    rows = _read_rows(table, classes)
    labels = np.array([[_binary(table, line, row, name) for name in classes] for line, row in rows], dtype=np.uint8)
    _check_rows(table, rows, labels, task)
    names, patients, splits = (tuple(row[column] for _, row in rows) for column in KEY_COLUMNS)
    stamps = _image_stamps(folder, table, [(line, row["image"]) for line, row in rows])
    content = [task, *classes, table.read_text(encoding="utf-8"), *stamps]
    fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return XrayDataset(folder.name, task, classes, names, patients, splits, labels, fingerprint, folder)


def require_same_classes(tables: Sequence[XrayTable]) -> None:
    """Several X-ray data sets feed one classification head: they must agree in task and classes, order included.

    Raises:
        UsageError: there is none, or two differ; names both.
    """
    if not tables:
        raise UsageError("no X-ray data set is given; link at least one: nnunet_ext link TARGET --xray ID")
    first = tables[0]
    for other in tables[1:]:
        if (other.task, other.classes) != (first.task, first.classes):
            raise UsageError(
                f"{first.name} ({first.task}: {', '.join(first.classes)}) and {other.name} ({other.task}:"
                f" {', '.join(other.classes)}) differ in task or classes; link X-ray data sets that agree in both,"
                " order included"
            )


def is_xray_dataset(dataset_json: dict[str, Any]) -> bool:
    """Whether a ``dataset.json`` describes X-rays with image-level labels."""
    return "classification" in relations(dataset_json)


def _classification(folder: Path) -> tuple[str, tuple[str, ...], Path]:
    """Task, classes and table that ``dataset.json`` names."""
    file = folder / "dataset.json"
    content = load_json(file)
    if not is_xray_dataset(content):
        raise UsageError(
            f'{file} has no "nnunet_ext": {{"classification": ...}}: {folder.name} is no X-ray data set with'
            f" image-level labels; convert one, e.g.: nnunet_ext convert chestxr SRC --id {dataset_id(folder.name)}"
        )
    block = relations(content)["classification"]
    task, classes = block.get("task"), block.get("classes")
    if task not in TASKS:
        raise UsageError(f"{file}: classification task {task!r} is not one of {', '.join(TASKS)}")
    if not isinstance(classes, list) or not classes or len(set(map(str, classes))) != len(classes):
        raise UsageError(f"{file}: classification classes {classes!r} must be a list of distinct names")
    table = folder / str(block.get("labels_file", "labels.csv"))
    if not table.is_file():
        raise UsageError(f"{table} does not exist; convert the data set again or correct labels_file in {file}")
    return str(task), tuple(map(str, classes)), table


def _read_rows(table: Path, classes: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Line number in the file and column -> value of each row; columns may come in any order."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        _check_header(table, header, [*KEY_COLUMNS, *classes])
        rows = []
        for values in reader:
            if len(values) != len(header):
                raise _row_error(table, reader.line_num, f"{len(values)} values", f"give {len(header)}, one per column")
            rows.append((reader.line_num, dict(zip(header, values, strict=True))))
    return rows


def _check_header(table: Path, header: list[str], expected: list[str]) -> None:
    missing = [column for column in expected if column not in header]
    unknown = [column for column in header if column not in expected]
    repeated = [column for column, times in Counter(header).items() if times > 1]
    faults = {"missing": missing, "unknown": unknown, "repeated": repeated}
    found = "; ".join(f"{fault} columns: {', '.join(columns)}" for fault, columns in faults.items() if columns)
    if found:
        raise UsageError(
            f"{table}: {found}; row 1 must be: {','.join(expected)} (the classes are those of dataset.json beside it)"
        )


def _binary(table: Path, line: int, row: dict[str, str], column: str) -> int:
    if row[column] not in ("0", "1"):
        raise _row_error(table, line, f"{column}={row[column]!r}", "write 0 or 1")
    return int(row[column])


def _check_rows(table: Path, rows: list[tuple[int, dict[str, str]]], labels: NDArray[np.uint8], task: str) -> None:
    first_line: dict[str, int] = {}
    for (line, row), label in zip(rows, labels, strict=True):
        if row["split"] not in SPLITS:
            raise _row_error(table, line, f"split={row['split']!r}", f"write one of {', '.join(SPLITS)}")
        if task == "multiclass" and label.sum() != 1:
            raise _row_error(table, line, f"{label.sum()} classes are 1", "a multiclass image has exactly one class")
        if first_line.setdefault(row["image"], line) != line:
            raise _row_error(table, line, f"{row['image']} stands in row {first_line[row['image']]} too", "remove one")
    if not any(row["split"] == "train" for _, row in rows):
        raise UsageError(f"{table} has no row with split=train among its {len(rows)}; mark the training images")


def _image_stamps(folder: Path, table: Path, images: list[tuple[int, str]]) -> list[str]:
    """Size and time of change of every image; UsageError naming those that are missing."""
    stamps, missing = [], []
    for line, name in images:
        try:
            status = os.stat(folder / name)  # noqa: PTH116  # a hundred thousand images: Path.stat costs twice as much
            stamps.append(f"{status.st_size} {int(status.st_mtime)}")
        except (FileNotFoundError, NotADirectoryError):
            missing.append(f"row {line}: {name}")
    if missing:
        shown = ", ".join(missing[:20]) + (", ..." if len(missing) > 20 else "")
        raise UsageError(
            f"{table}: {len(missing)} of {len(images)} images do not exist in {folder} ({shown}); restore the files or"
            " remove their rows"
        )
    return stamps


def _row_error(table: Path, line: int, found: str, fix: str) -> UsageError:
    return UsageError(f"{table}, row {line}: {found}; {fix}")
