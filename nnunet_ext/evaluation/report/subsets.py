"""What the report says about predictions from every subset of the modalities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.evaluation.report.evaluation import MethodPage, shown_classes
from nnunet_ext.evaluation.results import MEAN_CLASS
from nnunet_ext.evaluation.subsets import SHOWN_METRICS, SubsetTable


@dataclass(frozen=True)
class SubsetPage:
    """The table over the subsets of one prediction, and which of its classes are shown; `shown` is the subset that the
    rest of the page is about."""

    title: str
    shown: str
    table: SubsetTable
    classes: list[str]
    metrics: tuple[str, ...] = SHOWN_METRICS


def describe_subsets(methods: Sequence[MethodPage]) -> list[SubsetPage]:
    """A table for each prediction with subsets; repeats are not averaged."""
    pages: dict[Path, SubsetPage] = {}
    for method in methods:
        for evaluated in method.evaluated:
            folder, table = evaluated.folder, evaluated.subsets
            if table is not None and folder.parent not in pages:
                title = method.name if len(method.evaluated) == 1 else f"{method.name}, {folder.parent.name}"
                classes = shown_classes([name for name in table.classes if name != MEAN_CLASS])
                means = [MEAN_CLASS] if MEAN_CLASS in table.classes else []
                pages[folder.parent] = SubsetPage(title, folder.name, table, [*classes, *means])
    return list(pages.values())
