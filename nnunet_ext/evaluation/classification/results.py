"""What the scoring of a classifier found: one row per class, the confusion matrix, and the files that hold both."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.evaluation.classification.roc import LEVEL
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path, save_json

CSV_NAME, JSON_NAME = "classification.csv", "classification.json"
DEFINITIONS = {
    "auc": "area under the ROC curve: share of (positive, negative) pairs ranked rightly, a tie counts one half",
    "ap": "average precision: sum over thresholds of precision times gain in sensitivity, no interpolation",
    "sensitivity": "TP / (TP + FN)",
    "specificity": "TN / (TN + FP)",
    "precision": "TP / (TP + FP)",
    "f1": "2 TP / (2 TP + FP + FN)",
    "macro_auc": "mean of the AUCs that are defined",
    "confusion_matrix": "images whose labels are all known: row is the label, column the class of highest probability",
    "balanced_accuracy": "mean sensitivity of that matrix, over the classes that occur",
}
UNDEFINED_RULE = (
    "null here and nan in the CSV: AUC without positives or negatives, AP without positives, a ratio of 0 / 0, the"
    " interval of an AUC that is 0 or 1 or rests on fewer than two positives or negatives"
)
INTERVALS = {
    "delong": "DeLong on the logit scale",
    "bootstrap": "percentile bootstrap over patients, stratified by class",
}
MEASURES = ("auc", "ap", "sensitivity", "specificity", "precision", "f1")
COUNTS = ("positives", "negatives", "unknown", "TP", "FP", "FN", "TN")
COLUMNS = ("class", "auc", "auc_low", "auc_high", *MEASURES[1:], *COUNTS)


@dataclass(frozen=True)
class IntervalSettings:
    """How the 95 % intervals of the AUCs are found; `resamples` and `seed` are those of the bootstrap."""

    method: str = "delong"
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in INTERVALS:
            raise UsageError(f"interval {self.method!r} is not one of {', '.join(INTERVALS)}")
        if self.resamples < 100:
            raise UsageError(f"resamples={self.resamples} are too few for a 95 % interval; use 100 or more, e.g. 2000")
        if self.seed < 0:
            raise UsageError(f"seed={self.seed} must not be negative")

    def __str__(self) -> str:
        drawn = f", {self.resamples} resamples, seed {self.seed}" if self.method == "bootstrap" else ""
        return INTERVALS[self.method] + drawn


@dataclass(frozen=True, eq=False)
class Confusion:
    """(C, C) numbers of images: rows are labels, columns predictions."""

    matrix: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share of the images on the diagonal; nan without images."""
        total = int(self.matrix.sum())
        return int(np.trace(self.matrix)) / total if total else math.nan

    @property
    def balanced_accuracy(self) -> float:
        """Mean sensitivity of the classes that occur; nan without images."""
        return _mean([int(row[c]) / int(row.sum()) for c, row in enumerate(self.matrix) if row.any()])


@dataclass(frozen=True, eq=False)
class ClassificationResult:
    """What `score_classes` found.

    Attributes:
        rows: one dictionary per class with the keys `COLUMNS`, in the order of the classes.
        task: ``multiclass`` or ``multilabel``.
        num_images: all that were scored, also those without any known label.
        num_patients: how many are named.
        num_without_patient: images without one; each counts as a patient of its own.
        threshold: a probability of at least this is a positive prediction.
        intervals: of the AUCs.
        confusion: None if the task is multilabel.
    """

    rows: list[dict[str, Any]]
    task: str
    num_images: int
    num_patients: int
    num_without_patient: int
    threshold: float
    intervals: IntervalSettings
    confusion: Confusion | None

    @property
    def macro_auc(self) -> float:
        """Mean over the classes that have an AUC; nan when none has."""
        return _mean([row["auc"] for row in self.rows if not math.isnan(row["auc"])])

    def notes(self) -> list[str]:
        """What a reader of the numbers must know before believing them."""
        notes = []
        if self.num_without_patient:
            notes.append(
                f"{self.num_without_patient} images have no patient: the intervals assume that each is of another one"
            )
        if self.intervals.method == "delong" and self.num_patients + self.num_without_patient < self.num_images:
            notes.append(
                f"{self.num_images} images of {self.num_patients} patients: DeLong assumes independent images, so its"
                " intervals may be too narrow; resample patients instead with --interval bootstrap"
            )
        without = [row["class"] for row in self.rows if math.isnan(row["auc"])]
        if without:
            notes.append(
                f"AUC undefined without both positives and negatives, left out of macro AUC: {', '.join(without)}"
            )
        if self.confusion is not None and self.confusion.matrix.sum() < self.num_images:
            left_out = self.num_images - int(self.confusion.matrix.sum())
            notes.append(f"{left_out} images with an unknown label are left out of the confusion matrix")
        return notes

    def content(self) -> dict[str, Any]:
        """All of it for strict JSON; None where undefined."""
        names = [row["class"] for row in self.rows]
        confusion = self.confusion and {
            "classes": names,
            "matrix": self.confusion.matrix.tolist(),
            "accuracy": _defined(self.confusion.accuracy),
            "balanced_accuracy": _defined(self.confusion.balanced_accuracy),
        }
        return {
            "num_images": self.num_images,
            "num_patients": self.num_patients,
            "num_without_patient": self.num_without_patient,
            "task": self.task,
            "threshold": self.threshold,
            "interval": {"level": LEVEL, "description": str(self.intervals), "method": self.intervals.method},
            "notes": self.notes(),
            "macro_auc": _defined(self.macro_auc),
            "classes": {row["class"]: {key: _defined(row[key]) for key in COLUMNS[1:]} for row in self.rows},
            "confusion_matrix": confusion,
            "definitions": DEFINITIONS | {"undefined": UNDEFINED_RULE},
        }

    def save(self, folder: Path, **source: object) -> list[Path]:
        """Write ``classification.csv`` and ``classification.json``, which begins with `source`; returns both."""
        with atomic_path(folder / CSV_NAME) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        save_json(source | self.content(), folder / JSON_NAME)
        return [folder / CSV_NAME, folder / JSON_NAME]

    def table(self) -> str:
        """A table for the terminal, with what must be known to read it."""
        width = max(5, *(len(row["class"]) for row in self.rows))
        patients = f" of {self.num_patients} patients" if self.num_patients else ""
        head = (
            f"{self.num_images} images{patients}, {self.task}; sensitivity to F1 at probability >= {self.threshold:g}"
        )
        lines = [head, f"intervals: {self.intervals}", *(f"note: {note}" for note in self.notes()), ""]
        lines.append(" ".join(f"{title:>{size}}" for title, size in _widths(width).items()))
        for row in self.rows:
            low, high = row["auc_low"], row["auc_high"]
            interval = "undefined" if math.isnan(low) else f"{low:.4f} - {high:.4f}"
            measures = [spell(row[name]) for name in MEASURES]
            cells = [row["class"], measures[0], interval, *measures[1:], *(row[name] for name in COUNTS[:3])]
            sizes = _widths(width).values()
            lines.append(" ".join(f"{cell:>{size}}" for cell, size in zip(cells, sizes, strict=True)))
        return "\n".join([*lines, f"macro AUC {spell(self.macro_auc)}", "", *self._confusion_lines(width)])

    def _confusion_lines(self, width: int) -> list[str]:
        names = [row["class"] for row in self.rows]
        if self.confusion is None:
            counts = [
                f"{row['class']:<{width}}" + "".join(f" {row[key]:>9}" for key in COUNTS[3:]) for row in self.rows
            ]
            return [f"{'class':<{width}}" + "".join(f" {key:>9}" for key in COUNTS[3:]), *counts]
        wide = max(width, len(str(self.confusion.matrix.max(initial=0))))
        lines = ["confusion matrix: row is the label, column the class of highest probability"]
        lines.append(f"{'':<{width}}" + "".join(f" {name:>{wide}}" for name in names))
        for name, counts in zip(names, self.confusion.matrix, strict=True):
            lines.append(f"{name:<{width}}" + "".join(f" {count:>{wide}}" for count in counts))
        accuracy, balanced = spell(self.confusion.accuracy), spell(self.confusion.balanced_accuracy)
        return [*lines, f"accuracy {accuracy}, balanced accuracy {balanced}"]


def _widths(class_width: int) -> dict[str, int]:
    """Title -> width of the columns of the table."""
    titles = ("AUC", "95 % interval", "AP", *MEASURES[2:5], "F1", *COUNTS[:3])
    wide = {title: max(len("undefined"), len(title)) for title in titles}
    return {"class": class_width} | wide | {"95 % interval": len("0.0000 - 0.0000"), "unknown": len("unknown")}


def spell(value: float) -> str:
    """Four decimals, or ``undefined``."""
    return "undefined" if math.isnan(value) else f"{value:.4f}"


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
