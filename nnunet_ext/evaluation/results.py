"""What an evaluation found: one row per case and class, its summary, and the files that hold both."""

from __future__ import annotations

import csv
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_ext.evaluation.lesions import LesionCounts
from nnunet_ext.evaluation.metrics import METRICS, Counts
from nnunet_ext.evaluation.surface import SURFACE_DEFINITIONS
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path, load_json, save_json

CSV_NAME, JSON_NAME = "metrics.csv", "evaluation.json"
VOLUMES = ("reference_ml", "prediction_ml")
SURFACE_COLUMN, TOLERANCE_COLUMN = "surface_definition", "nsd_tolerance_mm"
COLUMNS = ("case", "class", *METRICS, *Counts._fields, *VOLUMES, *LesionCounts._fields)
"""Keys of a row; ``metrics.csv`` adds `SURFACE_COLUMN` and `TOLERANCE_COLUMN`, so that a line speaks for itself."""
RULES = {
    "both_empty": "every metric is nan: left out of mean, std and median, counted as 'undefined'",
    "one_empty": "HD, HD95, ASD, ASD_ref and ASSD are infinite, DSC, IoU, NSD and LF1 are 0; SEN, RVE and LSEN are nan"
    " without reference, PPV and LPPV without prediction",
    "mean": "mean and std (sample, n - 1) are over the n finite values; 'infinite' counts what they leave out",
    "median": "over finite and infinite values, so that a missed lesion counts",
}
Row = dict[str, Any]


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics of a folder of predictions.

    Attributes:
        rows: one dictionary per case and class with the keys `COLUMNS`, ordered by case, then class.
        reference: folder of the references.
        prediction: folder of the predictions.
        tolerance_mm: tolerance of NSD.
        surface_definition: key of `surface.SURFACE_DEFINITIONS`.
        labels: class name -> its label value, or the values that make it a region.
        file_ending: of the segmentation files.
        only_predicted: whether references without a prediction were left out.
        missing: cases without a prediction, scored as empty ones.
    """

    rows: list[Row]
    reference: str
    prediction: str
    tolerance_mm: float
    surface_definition: str = "A"
    labels: dict[str, int | list[int]] = field(default_factory=dict)
    file_ending: str = ".nii.gz"
    only_predicted: bool = False
    missing: list[str] = field(default_factory=list)

    @property
    def cases(self) -> list[str]:
        """Names of the cases, in order."""
        return list(dict.fromkeys(row["case"] for row in self.rows))

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in order."""
        return list(dict.fromkeys(row["class"] for row in self.rows))

    def rows_by(self, column: str) -> dict[str, list[Row]]:
        """Rows grouped by ``"case"`` or ``"class"``, in order."""
        grouped: dict[str, list[Row]] = {}
        for row in self.rows:
            grouped.setdefault(row[column], []).append(row)
        return grouped

    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        """class -> metric -> mean, std, median, n, infinite, undefined (see `RULES`)."""
        return {
            name: {metric: summarise([row[metric] for row in rows]) for metric in METRICS}
            for name, rows in self.rows_by("class").items()
        }

    def mean_over_classes(self, metric: str) -> dict[str, float]:
        """case -> mean of `metric` over its classes; undefined ones left out, nan where all are."""
        return {
            case: _mean([row[metric] for row in rows if not math.isnan(row[metric])])
            for case, rows in self.rows_by("case").items()
        }

    def save(self, folder: Path) -> list[Path]:
        """Write ``metrics.csv`` and ``evaluation.json`` (``summary.json``: see `host_summary`); returns both."""
        with atomic_path(folder / CSV_NAME) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            scoring = {SURFACE_COLUMN: self.surface_definition, TOLERANCE_COLUMN: self.tolerance_mm}
            writer = csv.DictWriter(file, [*COLUMNS, *scoring])
            writer.writeheader()
            writer.writerows(row | scoring for row in self.rows)
        header = {key: value for key, value in asdict(self).items() if key != "rows"}
        content = header | {"num_cases": len(self.cases), "definitions": self.definitions(), "rules": RULES}
        save_json(_json_numbers(content | {"summary": self.summary()}), folder / JSON_NAME)
        return [folder / CSV_NAME, folder / JSON_NAME]

    @classmethod
    def load(cls, folder: Path) -> EvaluationResult:
        """Read what `save` wrote.

        Raises:
            UsageError: not a folder of ``nnunet_ext evaluate``.
        """
        if not (folder / CSV_NAME).is_file() or not (folder / JSON_NAME).is_file():
            command = f"nnunet_ext evaluate GT PRED -o {shlex.quote(str(folder))}"
            raise UsageError(f"{folder} has no {CSV_NAME} and {JSON_NAME}; run: {command}")
        header = load_json(folder / JSON_NAME)
        with (folder / CSV_NAME).open(newline="", encoding="utf-8") as file:
            rows = [_row(line, folder / CSV_NAME) for line in csv.DictReader(file)]
        try:
            result = cls(rows, **{key: header[key] for key in cls.__dataclass_fields__ if key != "rows"})
        except (KeyError, TypeError) as error:
            raise UsageError(f"{folder / JSON_NAME} has no {error}; run nnunet_ext evaluate again") from None
        expected = {(case, name) for case in result.cases for name in result.labels}
        if not rows or {(row["case"], row["class"]) for row in rows} != expected or len(rows) != len(expected):
            raise UsageError(
                f"{folder / CSV_NAME} must have one line for each case and each of the classes"
                f" {', '.join(result.labels)}; run nnunet_ext evaluate again"
            )
        return result

    def table(self) -> str:
        """A table for the terminal: mean ± std per class, and what the means leave out."""
        summary = self.summary()
        notes = [note for name, rows in self.rows_by("class").items() for note in _notes(name, rows, summary[name])]
        if len(summary) > 1 and MEAN_CLASS not in summary:
            means = {metric: list(self.mean_over_classes(metric).values()) for metric in TABLE_METRICS}
            summary[MEAN_CLASS] = {metric: summarise(values) for metric, values in means.items()}
            notes += _left_out(f"{MEAN_CLASS} over the classes of a case", summary[MEAN_CLASS], len(self.cases))
        width = max(5, *(len(name) for name in summary))
        lines = [f"{'class':<{width}} " + " ".join(f"{metric:>13}" for metric in TABLE_METRICS)]
        for name, metrics in summary.items():
            cells = [f"{spell(m, metrics[m]['mean']):>6} ±{spell(m, metrics[m]['std']):>6}" for m in TABLE_METRICS]
            lines.append(f"{name:<{width}} " + " ".join(f"{cell:>13}" for cell in cells))
        head = f"{len(self.cases)} cases, mean ± standard deviation, distances in mm, {self.scoring()}"
        return "\n".join([head, *lines, *notes])

    def scoring(self) -> str:
        """Tolerance and surface definition, for the head of a table."""
        definition = SURFACE_DEFINITIONS[self.surface_definition]
        return f"NSD at {self.tolerance_mm:g} mm, surface definition {self.surface_definition}: {definition}"

    def definitions(self) -> dict[str, str]:
        """metric -> what it is, with unit and tolerance."""
        texts = {name: metric.text + (f", {metric.unit}" if metric.unit else "") for name, metric in METRICS.items()}
        surface = f"{self.surface_definition}: {SURFACE_DEFINITIONS[self.surface_definition]}"
        return texts | {"NSD": f"{texts['NSD']} ({self.tolerance_mm:g} mm)", "surface_definition": surface}


MEAN_CLASS = "mean"
"""Name of the row that averages over the classes of a case."""
TABLE_METRICS = ("DSC", "IoU", "SEN", "SPE", "PPV", "HD95", "ASSD", "NSD")


def spell(metric: str, value: float) -> str:
    """4 decimals for overlap, 2 for millimetres, ``inf`` and a dash for what is undefined."""
    if math.isnan(value):
        return "–"
    return f"{value:.2f}" if METRICS[metric].unit else f"{value:.4f}"


def _notes(name: str, rows: Sequence[Row], summary: dict[str, dict[str, float]]) -> list[str]:
    """What stands below a table about a class: its lesions, and what its means leave out."""
    total, missed, false = (
        int(sum(row[key] for row in rows)) for key in ("reference_lesions", "missed_lesions", "false_lesions")
    )
    return [
        f"{name}: {total - missed} of {total} lesions found, {false} false ones",
        *_left_out(name, summary, len(rows)),
    ]


def _left_out(name: str, summary: dict[str, dict[str, float]], num_cases: int) -> list[str]:
    notes = []
    undefined, infinite = summary["DSC"]["undefined"], summary["HD95"]["infinite"]
    if undefined:
        notes.append(f"{name}: {undefined} of {num_cases} cases empty in both, left out")
    if infinite:
        notes.append(
            f"{name}: {infinite} of {num_cases} cases empty in one only: DSC and NSD 0, distances infinite and left out"
            " of their mean"
        )
    return notes


def summarise(values: Sequence[float]) -> dict[str, float]:
    """mean, std, median, n, infinite, undefined of one metric (see `RULES`); nan where there is nothing."""
    defined = [value for value in values if not math.isnan(value)]
    finite = [value for value in defined if math.isfinite(value)]
    return {
        "mean": _mean(finite),
        "std": float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan,
        "median": float(np.median(defined)) if defined else math.nan,
        "n": len(finite),
        "infinite": len(defined) - len(finite),
        "undefined": len(values) - len(defined),
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _row(line: dict[str, str], path: Path) -> Row:
    """A line of ``metrics.csv`` with numbers as numbers."""
    try:
        numbers = {column: float(line[column]) for column in COLUMNS[2:]}
        return {"case": line["case"], "class": line["class"], **numbers}
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not a table of nnunet_ext evaluate ({error}); run it again") from None


def _json_numbers(value: Any) -> Any:
    """Strict JSON has neither: nan becomes null, infinity the string "inf"."""
    if isinstance(value, dict):
        return {key: _json_numbers(element) for key, element in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value
