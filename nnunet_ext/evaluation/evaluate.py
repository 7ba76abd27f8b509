"""Compare a folder of predictions with a folder of references, case by case, in parallel."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunet_ext.evaluation.metrics import Counts, mask_metrics
from nnunet_ext.evaluation.results import EvaluationResult, Row
from nnunet_ext.evaluation.segmentation import Classes, read_geometry, read_labels
from nnunet_ext.utilities.errors import UsageError

LISTED_AT_MOST = 20


@dataclass(frozen=True)
class Case:
    """A reference and its prediction; None scores as an empty one."""

    name: str
    reference: Path
    prediction: Path | None


def evaluate_folders(
    reference: Path,
    prediction: Path,
    *,
    dataset_json: Path | None = None,
    tolerance_mm: float = 3.0,
    num_processes: int = 1,
    allow_missing: bool = False,
    only_predicted: bool = False,
    quiet: bool = False,
) -> EvaluationResult:
    """Every metric of every case and class. The result does not depend on `num_processes`.

    Args:
        reference: folder of segmentations; its files say which cases there are.
        prediction: folder of segmentations of the same names.
        dataset_json: labels, regions, ignore label and file ending; looked for beside the folders if None.
        tolerance_mm: tolerance of NSD.
        num_processes: workers; each holds one case at a time.
        allow_missing: score a case without a prediction as an empty prediction.
        only_predicted: leave out references without a prediction.
        quiet: no progress bar.

    Raises:
        UsageError: a missing, extra, unreadable or misaligned prediction (all are listed), a value that dataset.json
            does not know, no cases, or an argument out of range.
    """
    if tolerance_mm < 0:
        raise UsageError(f"--tolerance {tolerance_mm} must not be negative (mm)")
    if num_processes < 1:
        raise UsageError(f"-np {num_processes} must be at least 1")
    if allow_missing and only_predicted:
        raise UsageError("--allow-missing and --only-predicted exclude each other: score missing cases, or leave out")
    for folder in (reference, prediction):
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder")
    classes = Classes.from_dataset_json(dataset_json or find_dataset_json(reference, prediction))
    cases = pair_cases(reference, prediction, classes.file_ending, allow_missing, only_predicted)
    check_alignment(cases)
    rows: list[Row] = []
    with _mapper(min(num_processes, len(cases))) as mapper:
        try:
            results = mapper(partial(evaluate_case, classes=classes, tolerance_mm=tolerance_mm), cases)
            for case_rows in tqdm(results, "Evaluating", len(cases), unit="case", disable=True if quiet else None):
                rows += case_rows
        except BrokenProcessPool:
            raise UsageError("a worker died, most likely for want of memory; run again with -np 1") from None
    missing = [case.name for case in cases if case.prediction is None]
    return EvaluationResult(
        rows, str(reference.resolve()), str(prediction.resolve()), tolerance_mm, only_predicted, missing
    )


def find_dataset_json(reference: Path, prediction: Path) -> Path:
    """The ``dataset.json`` of the predictions (nnUNetv2_predict copies it; a trained model has one above
    ``fold_0/validation``), else that above the references.

    Raises:
        UsageError: there is none.
    """
    folders = [prediction.resolve(), prediction.resolve().parent.parent, reference.resolve().parent]
    for folder in folders:
        if (folder / "dataset.json").is_file():
            return folder / "dataset.json"
    looked_in = ", ".join(str(folder) for folder in folders)
    raise UsageError(f"no dataset.json in {looked_in}; name it: --dataset-json FILE")


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
    if not predictions:
        raise UsageError(f"{prediction} has no files that end in {file_ending} (file_ending of dataset.json)")
    names = sorted(predictions if only_predicted else references)
    return [Case(name, references[name], predictions.get(name)) for name in names]


def _files(folder: Path, file_ending: str) -> dict[str, Path]:
    """Case name -> file; hidden files (half-written ones of another process) are none."""
    return {
        file.name[: -len(file_ending)]: file
        for file in folder.iterdir()
        if file.name.endswith(file_ending) and not file.name.startswith(".")
    }


def check_alignment(cases: Sequence[Case]) -> None:
    """Compare shape, spacing, origin and direction of every pair, from the headers.

    Raises:
        UsageError: lists the pairs that are not on one grid.
    """
    problems = []
    for case in cases:
        if case.prediction is None:
            continue
        differences = read_geometry(case.reference).differences(read_geometry(case.prediction))
        if differences:
            problems.append(f"{case.name} ({'; '.join(differences)})")
    if problems:
        raise UsageError(
            f"{len(problems)} predictions are not on the grid of their reference (reference and prediction):"
            f" {_listed(problems)}; resample them, or check that the folders belong together"
        )


def evaluate_case(case: Case, classes: Classes, tolerance_mm: float) -> list[Row]:
    """One row (`results.COLUMNS`) per class."""
    spacing = read_geometry(case.reference).spacing
    reference = read_labels(case.reference, classes)
    prediction = np.zeros_like(reference) if case.prediction is None else read_labels(case.prediction, classes)
    ignored = None if classes.ignore is None else reference == classes.ignore
    rows = []
    for name, values in classes.values.items():
        masks = _mask(reference, values), _mask(prediction, values)
        metrics, counts = mask_metrics(*masks, spacing, tolerance_mm, ignored)
        rows.append({"case": case.name, "class": name, **metrics, **counts._asdict(), **_volumes(counts, spacing)})
    return rows


def _mask(labels: Any, values: tuple[int, ...]) -> Any:
    return labels == values[0] if len(values) == 1 else np.isin(labels, values)


def _volumes(counts: Counts, spacing: Sequence[float]) -> Row:
    """Millilitres; nan for a 2D image, which has none."""
    voxel_ml = float(np.prod(spacing)) / 1000 if len(spacing) == 3 else float("nan")
    return {"reference_ml": (counts.TP + counts.FN) * voxel_ml, "prediction_ml": (counts.TP + counts.FP) * voxel_ml}


@contextmanager
def _mapper(num_processes: int) -> Iterator[Any]:
    """An ordered ``map``: in this process, or in spawned workers (a fork of a threaded parent may deadlock)."""
    if num_processes == 1:
        yield map
        return
    with ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn")) as pool:
        try:
            yield pool.map
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - LISTED_AT_MOST
    return ", ".join(names[:LISTED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
