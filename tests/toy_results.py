"""Evaluation results with chosen values, without images."""

from __future__ import annotations

import math

from nnunet_ext.evaluation.comparison.pairing import Method
from nnunet_ext.evaluation.metrics import METRICS
from nnunet_ext.evaluation.results import COLUMNS, EvaluationResult


def make_result(values, reference_voxels=100, **header):
    """A result from ``(case, class) -> {metric: value}``; other metrics are nan, every reference has as many voxels."""
    rows = [
        dict.fromkeys(COLUMNS, 0.0)
        | dict.fromkeys(METRICS, math.nan)
        | {"case": case, "class": name, "TP": 0.0, "FN": float(reference_voxels)}
        | found
        for (case, name), found in values.items()
    ]
    settings = {"reference": "labelsTs", "prediction": "out", "tolerance_mm": 3.0, "surface_definition": "A"} | header
    settings.setdefault("labels", {name: i for i, name in enumerate(dict.fromkeys(name for _, name in values), 1)})
    return EvaluationResult(rows, **settings)


def make_column(metric, numbers, class_name="lesion", start=0, **header):
    """A result of one metric and class with one case per number: case_00, case_01, ..."""
    cases = [f"case_{i:02d}" for i in range(start, start + len(numbers))]
    return make_result({(c, class_name): {metric: float(v)} for c, v in zip(cases, numbers, strict=True)}, **header)


def make_methods(metric, **numbers):
    """A method per keyword with one result of one metric and class."""
    return [Method(name, (make_column(metric, column),)) for name, column in numbers.items()]
