"""What a report is about: model folders and evaluations, each with a name."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.evaluation.comparison.pairing import (
    Method,
    check_definitions,
    check_references,
    named_folders,
    split_name,
)
from nnunet_ext.evaluation.report.model import Model, is_model_folder
from nnunet_ext.evaluation.results import CSV_NAME, JSON_NAME, EvaluationResult
from nnunet_ext.evaluation.subsets import SUBSETS_NAME, Subsets, SubsetTable
from nnunet_ext.utilities.errors import UsageError


@dataclass(frozen=True)
class Evaluated:
    """The evaluation in `folder`; several of one name are repeats (seeds) or folds. Where `folder` is that of a subset
    of the modalities, `subsets` are all of them."""

    name: str
    folder: Path
    result: EvaluationResult
    subsets: SubsetTable | None = None


@dataclass(frozen=True)
class Inputs:
    """Everything that the page shows, in the order given, with the names it has there."""

    models: list[tuple[str, Model]]
    evaluations: list[Evaluated]

    @property
    def methods(self) -> dict[str, list[Evaluated]]:
        """Evaluations by name, names in order of appearance."""
        grouped: dict[str, list[Evaluated]] = {}
        for evaluated in self.evaluations:
            grouped.setdefault(evaluated.name, []).append(evaluated)
        return grouped


@dataclass(frozen=True)
class _Input:
    """One argument: `model` is None for an evaluation; `named` says whether the user chose the name."""

    name: str
    folder: Path
    model: Model | None
    named: bool


def read_inputs(arguments: Sequence[str | Path], fold: str = "0", evaluation: Path | None = None) -> Inputs:
    """Open all folders.

    A model brings the evaluation of its ``fold_X/validation``, if there is one, but where evaluations are given for
    it: as `evaluation`, under its name, or, if it was given without a name, at all.

    Args:
        arguments: model folders and folders of ``nnunet_ext evaluate``, each as FOLDER or NAME=FOLDER.
        fold: which ``fold_X`` of the model folders.
        evaluation: an evaluation of the only model.

    Raises:
        UsageError: no folder, a folder that is neither or given twice, `evaluation` without a single model, or
            evaluations of one name that were measured differently.
    """
    chosen = {name for name, _ in (split_name(str(argument)) for argument in arguments)}
    inputs = [
        _open(name, folder, fold, name in chosen)
        for name, folders in named_folders(arguments, _label).items()
        for folder in folders
    ]
    folders = [entry.folder for entry in inputs]
    if not inputs:
        raise UsageError("name a model folder, or a folder of nnunet_ext evaluate")
    if repeated := next((folder for folder in folders if folders.count(folder) > 1), None):
        raise UsageError(f"{repeated} is given twice")
    models = [(entry.name, entry.model) for entry in inputs if entry.model]
    if evaluation is not None:
        if len(models) != 1:
            raise UsageError(f"--evaluation is for one model folder, not {len(models)}; add it as NAME={evaluation}")
        inputs.append(_Input(models[0][0], _largest_subset(evaluation.resolve()), None, False))
    given = {entry.name for entry in inputs if not entry.model}
    evaluations = []
    for entry in inputs:
        folder = entry.model.validation if entry.model else entry.folder
        superseded = entry.name in given if entry.named else bool(given)
        if not entry.model or (has_evaluation(folder) and not superseded):
            evaluations.append(Evaluated(entry.name, folder, EvaluationResult.load(folder), _subsets_beside(folder)))
    found = Inputs(models, evaluations)
    _check_repeats(found)
    return found


def has_evaluation(folder: Path) -> bool:
    """Whether ``nnunet_ext evaluate`` wrote there."""
    return (folder / CSV_NAME).is_file() and (folder / JSON_NAME).is_file()


def _open(name: str, folder: Path, fold: str, named: bool) -> _Input:
    if is_model_folder(folder):
        return _Input(name, folder, Model.open(folder, fold), named)
    folder = _largest_subset(folder)
    if not has_evaluation(folder):
        raise UsageError(
            f"{folder} is no model folder ($nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION, which holds"
            f" plans.json, dataset.json and fold_0) and has no {CSV_NAME} and {JSON_NAME} either; to get these run:"
            f" nnunet_ext evaluate GT PRED -o {shlex.quote(str(folder))}"
        )
    return _Input(name, folder, None, named)


def _largest_subset(folder: Path) -> Path:
    """Of a folder with a folder per subset of the modalities that with the most of them, of those evaluated."""
    if has_evaluation(folder) or not (folder / SUBSETS_NAME).is_file():
        return folder
    evaluated = [folder / name for name in Subsets.load(folder).subsets if has_evaluation(folder / name)]
    return evaluated[-1] if evaluated else folder


def _subsets_beside(folder: Path) -> SubsetTable | None:
    above = folder.parent
    if not (above / SUBSETS_NAME).is_file() or folder.name not in Subsets.load(above).subsets:
        return None
    return SubsetTable.load(above)


def _label(folder: Path) -> str:
    """What a folder without a name is called: a model by its trainer."""
    return folder.name.split("__")[0] if is_model_folder(folder) else folder.name


def _check_repeats(inputs: Inputs) -> None:
    """Raises UsageError where evaluations of one name were measured differently, so that no average makes sense."""
    for name, found in inputs.methods.items():
        method = Method(name, tuple(one.result for one in found))
        check_definitions([method])
        check_references([method])
