"""How the feature relations of a trained `RDCLTrainer` model came about (Figs. 5 and 6 of Zhang et al., 2021), from
what the run left in its fold's folder: no weights are loaded."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nnunet_ext.evaluation.report.charts import read_progress
from nnunet_ext.evaluation.report.model import Model
from nnunet_ext.settings.rdcl import RDCLSettings
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path
from nnunet_ext.utilities.relation_figures import draw_course, draw_epochs
from nnunet_ext.utilities.relation_record import (
    DISTANCE_TITLES,
    FILE_NAME,
    RANK_SERIES,
    WEIGHT_SERIES,
    read_relations,
)

MATRICES_PNG, COURSE_PNG, COURSE_CSV = "relation_matrices.png", "relation_course.png", "relation_course.csv"
TITLES = {**DISTANCE_TITLES, RANK_SERIES: "rank of F_G"}


@dataclass(frozen=True)
class RelationRun:
    """Epochs count from 0, as in ``progress.csv``.

    Attributes:
        kept: epoch -> matrices (C, C) by name, ascending, at least one.
        series: key in ``progress.csv`` -> a value for each finished epoch, nan where there is none.
    """

    kept: dict[int, dict[str, NDArray[Any]]]
    series: dict[str, list[float]]

    def table(self) -> str:
        """Distances and rank of the kept epochs, as text."""
        columns = {key: title for key, title in TITLES.items() if key in self.series}
        lines = ["  ".join(["epoch", *columns.values()])]
        for epoch in self.kept:
            cells = [f"{self.series[key][epoch]:{len(title)}.4f}" for key, title in columns.items()]
            lines.append("  ".join([f"{epoch:5d}", *cells]))
        return "\n".join(lines)

    def save(self, folder: Path) -> list[Path]:
        """Write figures and table into `folder`; each atomically. Returns: the files."""
        matrices, course, table = (folder / name for name in (MATRICES_PNG, COURSE_PNG, COURSE_CSV))
        draw_epochs(matrices, self.kept)
        draw_course(course, self.series)
        with atomic_path(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", *(key.split("/")[1] for key in self.series)])
            for epoch, values in enumerate(zip(*self.series.values(), strict=True)):
                writer.writerow([epoch, *("" if math.isnan(value) else f"{value:.6g}" for value in values)])
        return [matrices, course, table]


def read_relation_run(model: Model) -> RelationRun:
    """Read ``relations.npz`` and ``progress.csv`` of a fold. Epochs that are not finished are left out.

    Raises:
        UsageError: not a model of `RDCLTrainer`, trained without relation losses, or without a file of matrices.
    """
    trainer = RDCLSettings.trainer
    if model.trainer != trainer:
        raise UsageError(
            f"{model.folder} was trained by {model.trainer}, which has no feature relations; name a model of {trainer}"
        )
    if not (settings := RDCLSettings.from_plans(model.plans)).uses_relations:
        raise UsageError(
            f"{model.folder} was trained with ablation={settings.ablation}, without relation losses: there are no"
            " relations to show; name a model with another ablation"
        )
    progress = read_progress(model.fold_folder / "progress.csv")
    num_epochs = len(progress.get("epoch", []))
    relations = read_relations(model.fold_folder / FILE_NAME)
    kept = {epoch: matrices for epoch, matrices in relations.items() if epoch < num_epochs}
    if not kept:
        raise UsageError(
            f"{model.fold_folder} has no {FILE_NAME} with an epoch of its progress.csv: the first epoch is not"
            f" finished, or the run is older than this file; train again, or go on with: {model.train_command} --c"
        )
    keys = [*TITLES, WEIGHT_SERIES]
    return RelationRun(kept, {key: progress[key] for key in keys if key in progress})
