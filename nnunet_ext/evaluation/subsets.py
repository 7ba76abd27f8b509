"""Predictions from every subset of the modalities: the folders, their evaluation, and the table over all of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from nnunet_ext.evaluation.evaluate import evaluate_folders
from nnunet_ext.evaluation.host_summary import write_host_summary
from nnunet_ext.evaluation.journal import remove_journal
from nnunet_ext.evaluation.metrics import METRICS
from nnunet_ext.evaluation.results import CSV_NAME, MEAN_CLASS, EvaluationResult, spell, summarise
from nnunet_ext.evaluation.segmentation import FILE_ENDINGS
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path, load_json, save_json

SUBSETS_NAME, TABLE_NAME = "subsets.json", "subsets.csv"
AVERAGE = "average"
PRESENT, ABSENT = "●", "○"
SHOWN_METRICS = ("DSC", "HD95")
CSV_COLUMNS = ("subset", "class", "metric", "cases", "mean", "std", "median", "n", "infinite", "undefined")


def all_subsets(number: int) -> list[tuple[int, ...]]:
    """The 2^number - 1 subsets of range(number) that are not empty, small ones first."""
    return [subset for size in range(1, number + 1) for subset in combinations(range(number), size)]


@dataclass(frozen=True)
class Subsets:
    """What ``subsets.json`` says of a folder with a folder of predictions per subset.

    Attributes:
        modalities: their names, in the order of the model.
        subsets: name of the folder -> names of its modalities; small subsets first.
        model: where the predictions come from.
    """

    modalities: list[str]
    subsets: dict[str, list[str]]
    model: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write ``subsets.json``."""
        save_json({"modalities": self.modalities, "subsets": self.subsets, "model": self.model}, folder / SUBSETS_NAME)

    @classmethod
    def load(cls, folder: Path) -> Subsets:
        """Read what `save` wrote.

        Raises:
            UsageError: there is no such file, or it is not one of these.
        """
        content = load_json(folder / SUBSETS_NAME)
        try:
            subsets = sorted(dict(content["subsets"]).items(), key=lambda item: len(item[1]))
            return cls(list(content["modalities"]), dict(subsets), dict(content["model"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{folder / SUBSETS_NAME} is no list of subsets ({error}); predict again") from None


@dataclass(frozen=True)
class SubsetTable:
    """Scores of every subset.

    Attributes:
        subsets: what there is.
        results: name of the folder -> its evaluation; None where no case has these modalities.
    """

    subsets: Subsets
    results: Mapping[str, EvaluationResult | None]

    @classmethod
    def load(cls, folder: Path) -> SubsetTable:
        """Of a folder that ``nnunet_ext evaluate`` wrote to; subsets without an evaluation are None."""
        subsets = Subsets.load(folder)
        evaluated = {name: (folder / name / CSV_NAME).is_file() for name in subsets.subsets}
        results = {name: EvaluationResult.load(folder / name) if done else None for name, done in evaluated.items()}
        return cls(subsets, results)

    @cached_property
    def summaries(self) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
        """folder -> class (with `MEAN_CLASS` last, if there are several) -> metric -> `summarise`."""
        return {name: _summary(result) for name, result in self.results.items() if result is not None}

    @property
    def classes(self) -> list[str]:
        """Of all evaluations, in order."""
        return list(dict.fromkeys(name for summary in self.summaries.values() for name in summary))

    @property
    def scoring(self) -> str:
        """Tolerance and surface definition, in a sentence."""
        return next((result.scoring() for result in self.results.values() if result is not None), "")

    def dots(self, folder: str) -> list[str]:
        """`PRESENT` or `ABSENT` for each modality."""
        return [PRESENT if name in self.subsets.subsets[folder] else ABSENT for name in self.subsets.modalities]

    def num_cases(self, folder: str) -> int:
        """Cases that were predicted from this subset."""
        result = self.results[folder]
        return 0 if result is None else len(result.cases)

    def cell(self, folder: str, class_name: str, metric: str) -> str:
        """The mean; "†" behind it if it leaves out infinite values, "inf" if all are infinite."""
        found = self.summaries.get(folder, {}).get(class_name, {}).get(metric)
        if found is None:
            return "–"
        if not found["n"] and found["infinite"]:
            return "inf"
        return spell(metric, found["mean"]) + "†" * bool(found["infinite"])

    def average(self, class_name: str, metric: str) -> float:
        """Mean over the subsets of their means, of those that are defined; nan without any."""
        found = [summary[class_name][metric]["mean"] for summary in self.summaries.values() if class_name in summary]
        defined = [mean for mean in found if not math.isnan(mean)]
        return sum(defined) / len(defined) if defined else math.nan

    def notes(self) -> list[str]:
        """What the table leaves out, in sentences."""
        notes = []
        if any("†" in self.cell(f, c, m) for f in self.summaries for c in self.classes for m in SHOWN_METRICS):
            notes.append("† leaves out cases with an infinite distance (one of reference and prediction is empty)")
        if len({self.num_cases(folder) for folder in self.results}) > 1:
            notes.append("subsets have different cases, since not every case has every modality: rows do not compare")
        return notes

    def text(self) -> str:
        """One table per shown metric, for a terminal."""
        blocks = [self._block(metric) for metric in SHOWN_METRICS]
        return "\n\n".join([*blocks, "\n".join([self.scoring, *self.notes()])])

    def _block(self, metric: str) -> str:
        unit = METRICS[metric].unit
        scores = [[self.cell(folder, name, metric) for name in self.classes] for folder in self.results]
        scores.append([spell(metric, self.average(name, metric)) for name in self.classes])
        if any(text.endswith("†") for row in scores for text in row):  # digits stay below each other
            scores = [[text if text.endswith("†") else text + " " for text in row] for row in scores]
        labels = [[*self.dots(folder), str(self.num_cases(folder))] for folder in self.results]
        labels.append([AVERAGE, *[""] * len(self.subsets.modalities)])
        header = [*self.subsets.modalities, "cases", *self.classes]
        rows = [header, *(label + row for label, row in zip(labels, scores, strict=True))]
        lines = _aligned(rows, len(self.subsets.modalities))
        return "\n".join([f"{metric}{f' ({unit})' if unit else ''}, mean over the cases", *lines])

    def save(self, folder: Path) -> Path:
        """Write ``subsets.csv``: a line per subset, class and metric, and per average over the subsets."""
        lines: list[dict[str, Any]] = [
            {"subset": name, "class": class_name, "metric": metric, "cases": self.num_cases(name), **found}
            for name, summary in self.summaries.items()
            for class_name, metrics in summary.items()
            for metric, found in metrics.items()
        ]
        lines += [
            {"subset": AVERAGE, "class": class_name, "metric": metric, "mean": self.average(class_name, metric)}
            for class_name in self.classes
            for metric in METRICS
        ]
        with atomic_path(folder / TABLE_NAME) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, CSV_COLUMNS)
            writer.writeheader()
            writer.writerows(lines)
        return folder / TABLE_NAME


def evaluate_subsets(
    reference: Path, prediction: Path, output: Path, *, only_predicted: bool, quiet: bool, **options: Any
) -> SubsetTable:
    """Evaluate every folder that ``subsets.json`` of `prediction` lists; results go to folders of these names in
    `output`, and the table beside them. After a kill a second call goes on where the first one stopped.

    Args:
        reference: folder of segmentations.
        prediction: what ``nnunet_ext predict --all-subsets`` wrote.
        output: where to write; may be `prediction`.
        only_predicted: score the cases that a subset has, instead of demanding all; of some it may have none.
        quiet: no progress bars.
        options: as of `evaluate_folders`.

    Raises:
        UsageError: as `evaluate_folders`, or ``subsets.json`` is none.
    """
    subsets = Subsets.load(prediction)
    results: dict[str, EvaluationResult | None] = {}
    for number, name in enumerate(subsets.subsets, start=1):
        if not quiet:
            print(f"{name} ({number} of {len(subsets.subsets)})")
        if only_predicted and not _has_predictions(prediction / name):
            results[name] = None
            continue
        options |= {"only_predicted": only_predicted, "quiet": quiet, "journal": output / name}
        result = evaluate_folders(reference, prediction / name, **options)
        result.save(output / name)
        write_host_summary(result, output / name)
        results[name] = result
    table = SubsetTable(subsets, results)
    subsets.save(output)
    table.save(output)
    for name in subsets.subsets:  # not before: they spare a second call the subsets that are finished
        remove_journal(output / name)
    return table


def _has_predictions(folder: Path) -> bool:
    return folder.is_dir() and any(f.name.endswith(FILE_ENDINGS) and f.name[0] != "." for f in folder.iterdir())


def _summary(result: EvaluationResult) -> dict[str, dict[str, dict[str, float]]]:
    """class -> metric -> `summarise`, with the mean over the classes of a case last, where there are several."""
    summary = result.summary()
    if len(summary) > 1 and MEAN_CLASS not in summary:
        summary[MEAN_CLASS] = {m: summarise(list(result.mean_over_classes(m).values())) for m in METRICS}
    return summary


def _aligned(rows: Sequence[Sequence[str]], num_left: int) -> list[str]:
    """Rows of text with columns of equal width, the first `num_left` to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if i < num_left else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
