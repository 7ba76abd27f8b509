"""What the report says about the attention maps of a model of `MAMLTrainer`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.evaluation.attention import PLACES, AttentionTable, find_attention
from nnunet_ext.evaluation.attention_figure import panels_file
from nnunet_ext.evaluation.report.evaluation import MethodPage
from nnunet_ext.evaluation.report.model import ModelPage, ShownPicture, show_picture
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.pictures import Picture

MAX_PICTURES = 6
"""Cases whose figure is embedded: the first of the table."""


@dataclass(frozen=True)
class AttentionPage:
    """The means and figures in one folder; without a `table`, `note` says why."""

    title: str
    folder: Path
    table: AttentionTable | None
    pictures: list[ShownPicture]
    note: str = ""
    places: tuple[str, ...] = tuple(PLACES)


def describe_attention(models: Sequence[ModelPage], methods: Sequence[MethodPage]) -> list[AttentionPage]:
    """One for each reported folder with ``attention.csv`` in it or in its ``attention``: of a model that of its fold,
    else the mean over folds; then of the evaluations."""
    pages: dict[Path, AttentionPage] = {}
    for title, folder in _reported(models, methods):
        found = find_attention(folder)
        if found is not None and found.resolve() not in pages:
            pages[found.resolve()] = _describe(title, found)
    return list(pages.values())


def _reported(models: Sequence[ModelPage], methods: Sequence[MethodPage]) -> Iterator[tuple[str, Path]]:
    for page in models:
        fold = page.model.fold_folder
        of_fold = find_attention(fold) is not None
        yield f"{page.name}, {fold.name if of_fold else 'several folds'}", fold if of_fold else page.model.folder
    for method in methods:
        for evaluated in method.evaluated:
            folder = evaluated.folder
            yield method.name if len(method.evaluated) == 1 else f"{method.name}, {folder.name}", folder


def _describe(title: str, folder: Path) -> AttentionPage:
    try:
        table = AttentionTable.load(folder)
    except UsageError as error:
        return AttentionPage(title, folder, None, [], f"Not shown: {error}.")
    files = {case: panels_file(folder / case) for case in table.cases}
    drawn = [case for case, file in files.items() if file.is_file()]
    pictures = [show_picture(folder, _picture(case, files[case].name, table)) for case in drawn[:MAX_PICTURES]]
    more = len(drawn) - len(pictures)
    return AttentionPage(title, folder, table, pictures, f"Figures of {more} more cases are in {folder}." * bool(more))


def _picture(case: str, file: str, table: AttentionTable) -> Picture:
    names = ", ".join(table.cases[case])
    alt = f"A slice of {names} of {case}, and below each its attention map, with the outline of the prediction"
    return Picture(file, case, "", alt)
