"""Compare a folder of predictions with a folder of references, case by case, in parallel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_ext import __version__
from nnunet_ext.evaluation.classes import Classes
from nnunet_ext.evaluation.journal import Journal, journal_key
from nnunet_ext.evaluation.metrics import mask_metrics, volume_ml
from nnunet_ext.evaluation.results import EvaluationResult, Row
from nnunet_ext.evaluation.segmentation import find_file_ending, read_geometry, read_labels
from nnunet_ext.evaluation.surface import SURFACE_DEFINITIONS
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.parallel import run_parallel

LISTED_AT_MOST = 20


@dataclass(frozen=True)
class Case:
    """A reference and its prediction; None scores as an empty one."""

    name: str
    reference: Path
    prediction: Path | None


@dataclass(frozen=True)
class Scoring:
    """How masks are compared: tolerance of NSD in mm, and a key of `surface.SURFACE_DEFINITIONS`.

    Raises:
        UsageError: a negative or infinite tolerance, or no such definition.
    """

    tolerance_mm: float = 3.0
    surface_definition: str = "A"

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance_mm < math.inf:
            raise UsageError(f"--nsd-tolerance {self.tolerance_mm} must be finite and not negative (mm)")
        if self.surface_definition not in SURFACE_DEFINITIONS:
            raise UsageError(
                f"--surface-definition {self.surface_definition}: choose one of {', '.join(SURFACE_DEFINITIONS)}"
            )


def evaluate_folders(
    reference: Path,
    prediction: Path,
    *,
    dataset_json: Path | None = None,
    labels: Sequence[str] = (),
    regions: Sequence[str] = (),
    tolerance_mm: float = 3.0,
    surface_definition: str = "A",
    num_processes: int = 1,
    allow_missing: bool = False,
    only_predicted: bool = False,
    journal: Path | None = None,
    quiet: bool = False,
) -> EvaluationResult:
    """Every metric of every case and class. The result does not depend on `num_processes`.

    Args:
        reference: folder of segmentations; its files say which cases there are.
        prediction: folder of segmentations of the same names.
        dataset_json: labels, regions, ignore label and file ending; looked for beside the folders if None.
        labels: evaluate these only, by name or value; without a dataset.json, values.
        regions: evaluate unions of labels, as ``name=1,2,3``; with `labels`, besides these.
        tolerance_mm: tolerance of NSD.
        surface_definition: a key of `surface.SURFACE_DEFINITIONS`.
        num_processes: workers; each holds one case at a time.
        allow_missing: score a case without a prediction as an empty prediction.
        only_predicted: leave out references without a prediction.
        journal: folder that keeps finished cases until `remove_journal`; after a kill, a second call scores only the
            rest.
        quiet: no progress bar.

    Raises:
        UsageError: a missing, extra, unreadable or misaligned prediction (all are listed), a value that dataset.json
            does not know, no cases, or an argument out of range.
    """
    scoring = Scoring(tolerance_mm, surface_definition)
    if num_processes < 1:
        raise UsageError(f"-np {num_processes} must be at least 1")
    if allow_missing and only_predicted:
        raise UsageError("--allow-missing and --only-predicted exclude each other: score missing cases, or leave out")
    for folder in (reference, prediction):
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder")
    classes = find_classes(reference, prediction, dataset_json, labels, regions)
    cases = pair_cases(reference, prediction, classes.file_ending, allow_missing, only_predicted)
    check_alignment(cases)
    return EvaluationResult(
        _evaluate_cases(cases, classes, scoring, num_processes, journal, quiet),
        str(reference.resolve()),
        str(prediction.resolve()),
        scoring.tolerance_mm,
        scoring.surface_definition,
        {name: list(value) if isinstance(value, tuple) else value for name, value in classes.values.items()},
        classes.file_ending,
        only_predicted,
        [case.name for case in cases if case.prediction is None],
    )


def find_classes(
    reference: Path, prediction: Path, dataset_json: Path | None, labels: Sequence[str], regions: Sequence[str]
) -> Classes:
    """What to evaluate; `labels` and `regions` alone say it where there is no dataset.json.

    Raises:
        UsageError: neither, or labels that the data set does not have.
    """
    if dataset_json is not None and not dataset_json.is_file():
        raise UsageError(f"--dataset-json {dataset_json} is not a file")
    found = dataset_json or find_dataset_json(reference, prediction)
    if found is not None:
        return Classes.from_dataset_json(found).chosen(labels, regions)
    if not labels and not regions:
        looked_in = ", ".join(str(folder) for folder in _dataset_json_folders(reference, prediction))
        raise UsageError(f"no dataset.json in {looked_in}; name it (--dataset-json FILE), or the labels (--labels 1 2)")
    return Classes.from_arguments(labels, regions, find_file_ending(reference))


def _dataset_json_folders(reference: Path, prediction: Path) -> list[Path]:
    return [prediction.resolve(), prediction.resolve().parent.parent, reference.resolve().parent]


def find_dataset_json(reference: Path, prediction: Path) -> Path | None:
    """The ``dataset.json`` of the predictions (nnUNetv2_predict copies it; a trained model has one above
    ``fold_0/validation``), else that above the references, else None."""
    files = (folder / "dataset.json" for folder in _dataset_json_folders(reference, prediction))
    return next((file for file in files if file.is_file()), None)


def pair_cases(
    reference: Path, prediction: Path, file_ending: str, allow_missing: bool, only_predicted: bool
) -> list[Case]:
    """The cases in order of their names.

    Raises:
        UsageError: no cases, a prediction without a reference, or a reference without a prediction that neither
            flag allows.
    """
    references, predictions = _files(reference, file_ending), _files(prediction, file_ending)
    if not references:
        raise UsageError(f"{reference} has no files that end in {file_ending} (file_ending of dataset.json)")
    problems = []
    if extra := sorted(predictions.keys() - references.keys()):
        problems.append(f"{len(extra)} predictions have no reference in {reference}: {_listed(extra)}")
    missing = sorted(references.keys() - predictions.keys())
    if missing and not allow_missing and not only_predicted:
        problems.append(
            f"{len(missing)} of {len(references)} references have no prediction in {prediction}: {_listed(missing)}"
            " (--allow-missing scores them as empty, --only-predicted leaves them out)"
        )
    if problems:
        raise UsageError("; ".join(problems))
    if not predictions and not allow_missing:
        raise UsageError(f"{prediction} has no files that end in {file_ending} (file_ending of dataset.json)")
    names = sorted(predictions if only_predicted else references)
    return [Case(name, references[name], predictions.get(name)) for name in names]


def _files(folder: Path, file_ending: str) -> dict[str, Path]:
    """Case name -> file; hidden files (half-written ones of another process) are none."""
    files = {
        file.name[: -len(file_ending)]: file
        for file in folder.iterdir()
        if file.name.endswith(file_ending) and not file.name.startswith(".")
    }
    for name in files:
        if not name.isprintable():  # undecodable bytes of a name would crash the image library
            raise UsageError(f"{folder} holds a file whose name is no text ({name!r}); rename it")
    return files


def check_alignment(cases: Sequence[Case]) -> None:
    """Compare shape, spacing, origin and direction of every pair, from the headers.

    Raises:
        UsageError: lists the files that are no images, else the pairs that are not on one grid.
    """
    problems, unreadable = [], []
    for case in cases:
        try:
            geometry = read_geometry(case.reference)
            differences = [] if case.prediction is None else geometry.differences(read_geometry(case.prediction))
        except UsageError as error:
            unreadable.append(str(error))
            continue
        if differences:
            problems.append(f"{case.name} ({'; '.join(differences)})")
    if unreadable:
        raise UsageError(_listed(unreadable))
    if problems:
        raise UsageError(
            f"{len(problems)} predictions are not on the grid of their reference (reference and prediction):"
            f" {_listed(problems)}; resample them, or check that the folders belong together"
        )


def _evaluate_cases(
    cases: Sequence[Case], classes: Classes, scoring: Scoring, num_processes: int, folder: Path | None, quiet: bool
) -> list[Row]:
    """The rows of all cases, in their order; those that the journal in `folder` holds are not computed again."""
    journal = None if folder is None else Journal(folder)
    known = {} if journal is None else journal.finished
    settings = [__version__, list(classes.values.items()), classes.ignore, asdict(scoring)]
    keys = [
        journal_key([case.name, read_geometry(case.reference).spacing, *settings], [case.reference, case.prediction])
        for case in cases
    ]
    rest = [number for number, key in enumerate(keys) if key not in known]
    if len(rest) < len(cases) and not quiet:
        print(f"{len(cases) - len(rest)} of {len(cases)} cases were finished by an interrupted run; going on")

    def done(index: int, rows: list[Row]) -> str:
        if journal is not None:
            journal.add(keys[rest[index]], rows)
        return cases[rest[index]].name

    items = [(cases[number], classes, scoring) for number in rest]
    found = dict(zip(rest, run_parallel(evaluate_case, items, num_processes, "Evaluating", quiet, done), strict=True))
    return [row for number, key in enumerate(keys) for row in (found[number] if number in found else known[key])]


def evaluate_case(case: Case, classes: Classes, scoring: Scoring) -> list[Row]:
    """One row (`results.COLUMNS`) per class."""
    spacing = read_geometry(case.reference).spacing
    reference = read_labels(case.reference, classes)
    prediction = np.zeros_like(reference) if case.prediction is None else read_labels(case.prediction, classes)
    ignored = None if classes.ignore is None else reference == classes.ignore
    rows = []
    for name, value in classes.values.items():
        metrics, counts, lesions = mask_metrics(
            _mask(reference, value),
            _mask(prediction, value),
            spacing,
            scoring.tolerance_mm,
            ignored,
            scoring.surface_definition,
        )
        volumes = {
            "reference_ml": volume_ml(counts.TP + counts.FN, spacing),
            "prediction_ml": volume_ml(counts.TP + counts.FP, spacing),
        }
        row = {"case": case.name, "class": name, **metrics, **counts._asdict(), **volumes, **lesions._asdict()}
        rows.append(row)
    return rows


def _mask(labels: NDArray[np.integer], value: int | tuple[int, ...]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.isin(labels, value) if isinstance(value, tuple) else labels == value
    return found


def _listed(names: Sequence[str]) -> str:
    more = len(names) - LISTED_AT_MOST
    return ", ".join(names[:LISTED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
