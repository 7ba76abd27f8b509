"""nnU-Net's ``summary.json``: the same numbers under its names, so that its tools read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_ext.evaluation.metrics import METRICS
from nnunet_ext.evaluation.results import EvaluationResult, Row
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path, load_json

SUMMARY_NAME = "summary.json"
MARK = "nnunet_ext"


def host_summary(result: EvaluationResult) -> dict[str, Any]:
    """``metric_per_case``, ``mean`` and ``foreground_mean`` as nnU-Net computes them (nan left out, infinities kept),
    with our metrics beside its own."""
    keys = {name: _host_key(result.labels[name]) for name in result.classes}
    missing = set(result.missing)
    per_case = []
    for case, rows in result.rows_by("case").items():
        file = f"{case}{result.file_ending}"
        per_case.append(
            {
                "reference_file": str(Path(result.reference) / file),
                "prediction_file": None if case in missing else str(Path(result.prediction) / file),
                "metrics": {keys[row["class"]]: _host_metrics(row) for row in rows},
            }
        )
    names = list(_host_metrics(result.rows[0]))
    mean = {}
    for name, rows in result.rows_by("class").items():
        metrics = [_host_metrics(row) for row in rows]
        mean[keys[name]] = {key: _nanmean([values[key] for values in metrics]) for key in names}
    foreground = {name: float(np.mean([values[name] for values in mean.values()])) for name in names}
    about = {"surface_definition": result.surface_definition, "nsd_tolerance_mm": result.tolerance_mm}
    return {"foreground_mean": foreground, "mean": mean, "metric_per_case": per_case, MARK: about}


def write_host_summary(result: EvaluationResult, folder: Path) -> Path | None:
    """Write ``summary.json``, unless one is there that nnU-Net wrote itself; returns its path, or None."""
    path = folder / SUMMARY_NAME
    if path.is_file() and not _is_ours(path):
        return None
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(host_summary(result), indent=4) + "\n", encoding="utf-8")  # NaN, as nnU-Net
    return path


def _is_ours(path: Path) -> bool:
    try:
        return MARK in load_json(path)
    except (UsageError, TypeError):
        return False


def _host_key(labels: int | list[int]) -> str:
    return str(labels) if isinstance(labels, int) else str(tuple(labels))


def _host_metrics(row: Row) -> dict[str, float]:
    counts = {name: int(row[name]) for name in ("FP", "TP", "FN", "TN")}
    sizes = {"n_pred": counts["FP"] + counts["TP"], "n_ref": counts["FN"] + counts["TP"]}
    return {"Dice": row["DSC"], **counts, **sizes, **{name: row[name] for name in METRICS if name != "DSC"}}


def _nanmean(values: list[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
