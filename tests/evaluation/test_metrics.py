from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_ext.evaluation.metrics import (
    DEFINITIONS,
    MILLIMETRE_METRICS,
    OVERLAP_METRICS,
    SURFACE_METRICS,
    Counts,
    count_voxels,
    edge_voxels,
    mask_metrics,
    overlap_metrics,
    surface_distances,
    surface_metrics,
)

SPACING = (5.0, 2.0, 0.5)  # z, y, x


def voxels(*positions, shape=(4, 6, 8)):
    mask = np.zeros(shape, dtype=bool)
    for position in positions:
        mask[position] = True
    return mask


def random_pair(seed, shape=(6, 9, 11), density=0.15):
    generator = np.random.default_rng(seed)
    return generator.random(shape) < density, generator.random(shape) < density


def test_two_single_voxels_by_hand():
    # 1 slice (5 mm), 2 rows (4 mm) and 4 columns (2 mm) apart.
    metrics, counts = mask_metrics(voxels((1, 1, 1)), voxels((2, 3, 5)), SPACING, tolerance_mm=6.7)
    distance = math.sqrt(5**2 + 4**2 + 2**2)
    assert counts == Counts(TP=0, FP=1, FN=1, TN=4 * 6 * 8 - 2)
    assert [metrics[name] for name in MILLIMETRE_METRICS] == pytest.approx([distance] * 4, abs=1e-12)
    assert metrics["NSD"] == 0.0  # 6.708 mm
    assert mask_metrics(voxels((1, 1, 1)), voxels((2, 3, 5)), SPACING, tolerance_mm=6.71)[0]["NSD"] == 1.0
    assert metrics["DSC"] == metrics["IoU"] == metrics["SEN"] == metrics["PPV"] == 0.0
    assert metrics["SPE"] == pytest.approx(190 / 191)


def test_three_voxels_by_hand():
    # Reference: columns 1 and 2. Prediction: columns 2 and 6. Columns are 0.5 mm wide.
    reference, prediction = voxels((0, 0, 1), (0, 0, 2)), voxels((0, 0, 2), (0, 0, 6))
    metrics, counts = mask_metrics(reference, prediction, SPACING, tolerance_mm=0.5)
    assert counts == Counts(TP=1, FP=1, FN=1, TN=189)
    assert {name: metrics[name] for name in OVERLAP_METRICS} == pytest.approx(
        {"DSC": 0.5, "IoU": 1 / 3, "SEN": 0.5, "SPE": 189 / 190, "PPV": 0.5}
    )
    # Prediction -> reference: 0 and 2 mm. Reference -> prediction: 0.5 and 0 mm.
    assert {name: metrics[name] for name in SURFACE_METRICS} == pytest.approx(
        {"HD": 2.0, "HD95": 1.9, "ASD": 1.0, "ASSD": 2.5 / 4, "NSD": 3 / 4}
    )


def test_hd_is_the_larger_direction_and_asd_starts_from_the_prediction():
    reference, prediction = voxels((0, 0, 0), (3, 0, 0)), voxels((0, 0, 0))
    metrics, _ = mask_metrics(reference, prediction, SPACING, 1.0)
    assert metrics["HD"] == 15.0
    assert metrics["ASD"] == 0.0
    assert mask_metrics(prediction, reference, SPACING, 1.0)[0]["ASD"] == 7.5


def test_edges_are_faces_towards_background_or_the_border():
    mask = np.zeros((5, 5), dtype=bool)
    mask[1:4, 1:4] = True
    expected = mask.copy()
    expected[2, 2] = False
    assert np.array_equal(edge_voxels(mask), expected)
    full = np.ones((3, 3, 3), dtype=bool)
    assert edge_voxels(full).sum() == 26


def test_a_diagonal_neighbour_does_not_make_an_edge():
    mask = np.ones((3, 3), dtype=bool)
    mask[0, 0] = False
    assert not edge_voxels(mask)[1, 1]


def test_a_single_slice_is_a_2d_image():
    reference, prediction = random_pair(3, (1, 12, 12), 0.6)
    flat = surface_metrics(surface_distances(reference[0], prediction[0], SPACING[1:]), 1.0)
    assert surface_metrics(surface_distances(reference, prediction, SPACING), 1.0) == flat
    assert flat["ASSD"] > 0


def test_one_voxel_image():
    mask = np.ones((1, 1, 1), dtype=bool)
    assert mask_metrics(mask, mask, SPACING, 1.0)[0]["HD"] == 0.0


def test_identical_masks_are_perfect():
    mask, _ = random_pair(0)
    metrics, _ = mask_metrics(mask, mask, SPACING, 0.0)
    assert all(metrics[name] == 0.0 for name in MILLIMETRE_METRICS)
    assert all(metrics[name] == 1.0 for name in (*OVERLAP_METRICS, "NSD"))


def test_both_empty_is_nan_throughout():
    empty = voxels()
    metrics, counts = mask_metrics(empty, empty, SPACING, 1.0)
    assert set(metrics) == set(DEFINITIONS)
    assert all(math.isnan(value) for value in metrics.values())
    assert empty.size == counts.TN


@pytest.mark.parametrize("missed", [True, False])
def test_one_empty(missed):
    empty, found = voxels(), voxels((1, 1, 1))
    metrics, _ = mask_metrics(*((found, empty) if missed else (empty, found)), SPACING, 1.0)
    assert all(metrics[name] == math.inf for name in MILLIMETRE_METRICS)
    assert metrics["DSC"] == metrics["IoU"] == metrics["NSD"] == 0.0
    assert math.isnan(metrics["PPV" if missed else "SEN"])
    assert metrics["SEN" if missed else "PPV"] == 0.0
    assert metrics["SPE"] == (1.0 if missed else 191 / 192)


def test_ignored_voxels_count_nowhere():
    reference, prediction = voxels((0, 0, 1)), voxels((0, 0, 1), (3, 5, 7))
    ignored = voxels((3, 5, 7), (3, 5, 6))
    metrics, counts = mask_metrics(reference, prediction, SPACING, 1.0, ignored)
    assert counts == Counts(TP=1, FP=0, FN=0, TN=189)
    assert metrics["DSC"] == 1.0 and metrics["HD"] == 0.0


def test_specificity_without_background_is_nan():
    assert math.isnan(overlap_metrics(Counts(5, 0, 1, 0))["SPE"])


def test_wrong_arguments_are_named():
    mask = voxels((0, 0, 0))
    with pytest.raises(ValueError, match=r"shape \(4, 6, 8\), prediction \(4, 6, 7\)"):
        count_voxels(mask, mask[..., :-1])
    with pytest.raises(ValueError, match="3 positive numbers"):
        surface_distances(mask, mask, (1.0, 1.0))
    with pytest.raises(ValueError, match="3 positive numbers"):
        surface_distances(mask, mask, (1.0, 0.0, 1.0))
    distances = surface_distances(mask, mask, SPACING)
    with pytest.raises(ValueError, match="tolerance_mm=-1"):
        surface_metrics(distances, -1)
    with pytest.raises(ValueError, match="empty"):
        surface_metrics(surface_distances(mask, voxels(), SPACING), 1)


cases = st.tuples(st.integers(0, 2**32 - 1), st.sampled_from([0.03, 0.2, 0.6]))
spacings = st.tuples(*[st.sampled_from([0.5, 0.75, 1.0, 3.3, 5.0])] * 3)


@settings(max_examples=25, deadline=None)
@given(cases, spacings)
def test_properties(case, spacing):
    reference, prediction = random_pair(case[0], density=case[1])
    metrics, _ = mask_metrics(reference, prediction, spacing, 2.0)
    swapped, _ = mask_metrics(prediction, reference, spacing, 2.0)
    permuted, _ = mask_metrics(
        reference.transpose(2, 0, 1), prediction.transpose(2, 0, 1), [spacing[2], spacing[0], spacing[1]], 2.0
    )
    scaled, _ = mask_metrics(reference, prediction, [2 * s for s in spacing], 4.0)
    padded, _ = mask_metrics(*(np.pad(m, ((2, 1), (0, 3), (4, 0))) for m in (reference, prediction)), spacing, 2.0)
    symmetric = ("DSC", "IoU", "HD", "HD95", "ASSD", "NSD")
    assert [swapped[n] for n in symmetric] == pytest.approx([metrics[n] for n in symmetric], nan_ok=True)
    assert permuted == pytest.approx(metrics, nan_ok=True)
    assert [scaled[n] for n in MILLIMETRE_METRICS] == pytest.approx(
        [2 * metrics[n] for n in MILLIMETRE_METRICS], nan_ok=True
    )
    assert scaled["NSD"] == pytest.approx(metrics["NSD"], nan_ok=True)
    assert [padded[n] for n in SURFACE_METRICS] == pytest.approx([metrics[n] for n in SURFACE_METRICS], nan_ok=True)


@pytest.fixture(scope="module")
def monai_metrics():
    """MONAI's public functions as one function of two masks (reference, prediction)."""
    pytest.importorskip("monai")
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MONAI's imports
        from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    def compute(reference, prediction, spacing, tolerance):
        one_hot = [torch.from_numpy(np.stack([~m, m])[None]).float() for m in (prediction, reference)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {
                "HD": compute_hausdorff_distance(*one_hot, spacing=spacing).item(),
                "HD95": compute_hausdorff_distance(*one_hot, percentile=95, spacing=spacing).item(),
                "ASD": compute_average_surface_distance(*one_hot, spacing=spacing).item(),
                "ASSD": compute_average_surface_distance(*one_hot, symmetric=True, spacing=spacing).item(),
                "NSD": compute_surface_dice(*one_hot, class_thresholds=[tolerance], spacing=spacing).item(),
            }

    return compute


@settings(max_examples=40, deadline=None)
@given(case=cases, spacing=spacings, tolerance=st.sampled_from([0.7, 1.3, 3.1]))
def test_agrees_with_monai(monai_metrics, case, spacing, tolerance):
    reference, prediction = random_pair(case[0], density=case[1])
    if not reference.any() or not prediction.any():
        return
    ours, _ = mask_metrics(reference, prediction, spacing, tolerance)
    theirs = monai_metrics(reference, prediction, spacing, tolerance)
    assert {name: ours[name] for name in SURFACE_METRICS} == pytest.approx(theirs, rel=1e-6, abs=1e-6)
