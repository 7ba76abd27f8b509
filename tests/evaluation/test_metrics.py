from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_masks import SPACING, random_pair, voxels

from nnunet_ext.evaluation.lesions import LesionCounts
from nnunet_ext.evaluation.metrics import (
    METRICS,
    OVERLAP_METRICS,
    Counts,
    count_voxels,
    mask_metrics,
    overlap_metrics,
    require_metrics,
    volume_ml,
)
from nnunet_ext.evaluation.surface import (
    MILLIMETRE_METRICS,
    SURFACE_METRICS,
    surface_distances,
    surface_metrics,
)
from nnunet_ext.utilities.errors import UsageError

VOXEL_ML = 5 * 2 * 0.5 / 1000


def test_two_single_voxels_by_hand():
    # 1 slice (5 mm), 2 rows (4 mm) and 4 columns (2 mm) apart.
    metrics, counts, lesions = mask_metrics(voxels((1, 1, 1)), voxels((2, 3, 5)), SPACING, tolerance_mm=6.7)
    distance = math.sqrt(5**2 + 4**2 + 2**2)
    assert list(metrics) == list(METRICS)
    assert counts == Counts(TP=0, FP=1, FN=1, TN=4 * 6 * 8 - 2)
    assert [metrics[name] for name in MILLIMETRE_METRICS] == pytest.approx([distance] * 5, abs=1e-12)
    assert metrics["NSD"] == 0.0  # 6.708 mm
    assert metrics["DSC"] == metrics["IoU"] == metrics["SEN"] == metrics["PPV"] == 0.0
    assert metrics["SPE"] == pytest.approx(190 / 191)
    assert metrics["MAE"] == pytest.approx(2 / 192)
    assert metrics["VE"] == metrics["RVE"] == 0.0
    assert lesions == LesionCounts(1, 1, 1, 1)
    assert metrics["LSEN"] == metrics["LPPV"] == metrics["LF1"] == 0.0


def test_three_voxels_by_hand():
    # Reference: columns 1 and 2. Prediction: columns 2, 6 and 7. Columns are 0.5 mm wide.
    reference, prediction = voxels((0, 0, 1), (0, 0, 2)), voxels((0, 0, 2), (0, 0, 6), (0, 0, 7))
    metrics, counts, lesions = mask_metrics(reference, prediction, SPACING, tolerance_mm=0.5)
    assert counts == Counts(TP=1, FP=2, FN=1, TN=188)
    # Prediction -> reference: 0, 2 and 2.5 mm. Reference -> prediction: 0.5 and 0 mm.
    assert metrics == pytest.approx(
        {
            "DSC": 2 / 5,
            "IoU": 1 / 4,
            "SEN": 1 / 2,
            "SPE": 188 / 190,
            "PPV": 1 / 3,
            "MAE": 3 / 192,
            "HD": 2.5,
            "HD95": 2.45,
            "ASD": 1.5,
            "ASD_ref": 0.25,
            "ASSD": 1.0,
            "NSD": 3 / 5,
            "VE": VOXEL_ML,
            "RVE": 1 / 2,
            "LSEN": 1.0,
            "LPPV": 1 / 2,
            "LF1": 2 / 3,
        }
    )
    assert lesions == LesionCounts(reference_lesions=1, prediction_lesions=2, missed_lesions=0, false_lesions=1)


@pytest.mark.parametrize("definition", ["A", "B", "C"])
def test_a_lesion_of_one_slice_is_no_2d_image(definition):
    # A square of 3 x 3 and one a column further, in one slice of a volume: all nine voxels are edges, also the middle.
    reference, prediction = np.zeros((2, 4, 6, 8), dtype=bool)
    reference[1, 1:4, 1:4] = prediction[1, 1:4, 2:5] = True
    metrics = mask_metrics(reference, prediction, SPACING, 0.2, surface_definition=definition).metrics
    if definition != "C":  # both ways: six voxels at 0, three at 0.5 mm
        assert [metrics[n] for n in ("HD", "ASD", "ASD_ref", "ASSD", "NSD")] == pytest.approx(
            [0.5, 1 / 6, 1 / 6, 1 / 6, 6 / 9]
        )
    distances = surface_distances(reference, prediction, SPACING, definition)
    expected = surface_metrics(distances, 0.2, definition)
    assert {name: metrics[name] for name in expected} == expected


@pytest.mark.parametrize("definition", ["B", "C"])
def test_the_surface_definition_changes_surface_metrics_alone(definition):
    a, other = (mask_metrics(*random_pair(1), SPACING, 1.0, surface_definition=d)[0] for d in ("A", definition))
    assert {name for name in METRICS if a[name] != other[name]} <= set(SURFACE_METRICS)
    assert a["HD95"] != other["HD95"] and a["ASSD"] != other["ASSD"]


def test_identical_masks_are_perfect():
    mask, _ = random_pair(0)
    metrics, _, _ = mask_metrics(mask, mask, SPACING, 0.0)
    best = {"high": 1.0, "low": 0.0, "zero": 0.0}
    assert metrics == {name: best[metric.best] for name, metric in METRICS.items()}


def test_both_empty_is_nan_throughout():
    empty = voxels()
    metrics, counts, lesions = mask_metrics(empty, empty, SPACING, 1.0)
    assert list(metrics) == list(METRICS)
    assert all(math.isnan(value) for value in metrics.values())
    assert lesions == LesionCounts(0, 0, 0, 0)
    assert empty.size == counts.TN


@pytest.mark.parametrize("missed", [True, False])
def test_one_empty(missed):
    empty, found = voxels(), voxels((1, 1, 1))
    metrics, _, lesions = mask_metrics(*((found, empty) if missed else (empty, found)), SPACING, 1.0)
    assert all(metrics[name] == math.inf for name in MILLIMETRE_METRICS)
    assert metrics["DSC"] == metrics["IoU"] == metrics["NSD"] == metrics["LF1"] == 0.0
    assert math.isnan(metrics["PPV" if missed else "SEN"])
    assert metrics["SEN" if missed else "PPV"] == 0.0
    assert metrics["SPE"] == (1.0 if missed else 191 / 192)
    assert metrics["VE"] == pytest.approx(-VOXEL_ML if missed else VOXEL_ML)
    assert metrics["RVE"] == -1.0 if missed else math.isnan(metrics["RVE"])
    assert math.isnan(metrics["LPPV" if missed else "LSEN"]) and metrics["LSEN" if missed else "LPPV"] == 0.0
    assert lesions == (LesionCounts(1, 0, 1, 0) if missed else LesionCounts(0, 1, 0, 1))


def test_ignored_voxels_count_nowhere():
    reference, prediction = voxels((0, 0, 1)), voxels((0, 0, 1), (3, 5, 7))
    ignored = voxels((3, 5, 7), (3, 5, 6))
    metrics, counts, lesions = mask_metrics(reference, prediction, SPACING, 1.0, ignored)
    assert counts == Counts(TP=1, FP=0, FN=0, TN=189)
    assert metrics["DSC"] == 1.0 and metrics["HD"] == 0.0 and metrics["VE"] == 0.0
    assert lesions == LesionCounts(1, 1, 0, 0)


def test_specificity_without_background_is_nan():
    assert math.isnan(overlap_metrics(Counts(5, 0, 1, 0))["SPE"])


def test_a_2d_image_has_no_volume():
    metrics = mask_metrics(voxels((1, 1), shape=(4, 4)), voxels((1, 1), (1, 2), shape=(4, 4)), (1.0, 1.0), 1.0).metrics
    assert math.isnan(metrics["VE"]) and metrics["RVE"] == 1.0
    assert math.isnan(volume_ml(3, (1.0, 1.0))) and volume_ml(3, SPACING) == pytest.approx(3 * VOXEL_ML)


def test_wrong_arguments_are_named():
    mask = voxels((0, 0, 0))
    with pytest.raises(ValueError, match=r"shape \(4, 6, 8\), prediction \(4, 6, 7\)"):
        count_voxels(mask, mask[..., :-1])
    require_metrics(["DSC", "LF1"])
    with pytest.raises(UsageError, match="no metric Dice; choose among DSC, IoU"):
        require_metrics(["DSC", "Dice"])


cases = st.tuples(st.integers(0, 2**32 - 1), st.sampled_from([0.03, 0.2, 0.6]))


@settings(max_examples=25, deadline=None)
@given(cases)
def test_properties(case):
    """Symmetry, translation, scaling and permutation of what is no surface metric; the others: test_surface.py."""
    reference, prediction = random_pair(case[0], density=case[1])
    others = [name for name in METRICS if name not in SURFACE_METRICS]

    def scores(first, second, spacing=SPACING):
        found = mask_metrics(first, second, spacing, 1.0).metrics
        return {name: found[name] for name in others}

    metrics, swapped = scores(reference, prediction), scores(prediction, reference)
    for name, twin in (
        ("DSC", "DSC"),
        ("IoU", "IoU"),
        ("MAE", "MAE"),
        ("SEN", "PPV"),
        ("LSEN", "LPPV"),
        ("LF1", "LF1"),
    ):
        assert swapped[twin] == pytest.approx(metrics[name], nan_ok=True)
    assert swapped["VE"] == pytest.approx(-metrics["VE"], nan_ok=True)
    turned = scores(*(m.transpose(2, 0, 1) for m in (reference, prediction)), (0.5, 5.0, 2.0))
    assert turned == pytest.approx(metrics, nan_ok=True)
    assert scores(*(np.roll(np.pad(m, 2), 1, 0) for m in (reference, prediction)))["LF1"] == pytest.approx(
        metrics["LF1"], nan_ok=True
    )
    doubled = scores(reference, prediction, [2 * s for s in SPACING])
    assert doubled["VE"] == pytest.approx(8 * metrics["VE"], nan_ok=True)
    assert all(math.isnan(metrics[n]) for n in OVERLAP_METRICS) == (not reference.any() and not prediction.any())
