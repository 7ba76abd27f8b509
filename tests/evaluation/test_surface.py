from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_masks import SPACING, random_pair, voxels

from nnunet_ext.evaluation.surface import (
    MILLIMETRE_METRICS,
    SURFACE_DEFINITIONS,
    SURFACE_METRICS,
    edge_voxels,
    surface_distances,
    surface_metrics,
    weighted_percentile,
)


def measure(reference, prediction, spacing=SPACING, tolerance=1.0, definition="A"):
    return surface_metrics(surface_distances(reference, prediction, spacing, definition), tolerance, definition)


@pytest.mark.parametrize("definition", SURFACE_DEFINITIONS)
def test_two_single_voxels_by_hand(definition):
    # 1 slice (5 mm), 2 rows (4 mm) and 4 columns (2 mm) apart: as far is each corner from its counterpart, but under C
    # the corners that face the other voxel are nearer.
    reference, prediction = voxels((1, 1, 1)), voxels((2, 3, 5))
    if definition == "C":
        # Corner to corner: along z 0, 5 or 10 mm as offsets {0, 1} of either voxel differ; the nearest reference corner
        # of a prediction corner at offset (a, b, c) is (1, 1, 1): (a, 1 + b, 3 + c) steps away.
        expected = [math.hypot(5 * a, 2 * (1 + b), 0.5 * (3 + c)) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
        metrics = measure(reference, prediction, tolerance=4.0, definition="C")
        within = sum(d <= 4.0 for d in expected) / 8
        assert metrics == pytest.approx(
            {
                "HD": max(expected),
                "HD95": max(expected),  # 7 of 8 equal areas are 87.5 %
                "ASD": np.mean(expected),
                "ASD_ref": np.mean(expected),
                "ASSD": np.mean(expected),
                "NSD": within,
            }
        )
        assert 0 < within < 1
    else:
        distance = math.sqrt(5**2 + 4**2 + 2**2)
        metrics = measure(reference, prediction, tolerance=6.7, definition=definition)
        assert [metrics[name] for name in MILLIMETRE_METRICS] == pytest.approx([distance] * 5, abs=1e-12)
        assert metrics["NSD"] == 0.0  # 6.708 mm
        assert measure(reference, prediction, tolerance=6.71, definition=definition)["NSD"] == 1.0


# Reference: columns 1 and 2. Prediction: columns 2 and 6. Columns are 0.5 mm wide.
# A, B: prediction -> reference 0 and 2 mm, reference -> prediction 0.5 and 0 mm.
A_AND_B = {"HD": 2.0, "ASD": 1.0, "ASD_ref": 0.25, "NSD": 3 / 4}
# C: the reference is a box of 2 columns: grid corners at columns 1, 2, 3 (4 each); the prediction has boxes with
# corners at 2, 3 and 6, 7. Prediction -> reference: 0, 0, 1.5, 2 mm (equal areas: all are corners of a box).
# Reference -> prediction: 0.5, 0, 0 mm; the grid corners at column 2 lie on straight edges of the box, see `edge`.
corner = math.sqrt((2.5 * 1.0) ** 2 + (2.5 * 0.25) ** 2 + (1.0 * 0.25) ** 2) / 2  # triangle with legs of half a voxel
edge = 0.5 * math.hypot(2.5, 1.0)  # along x: a rectangle of 0.5 mm by the diagonal of half a voxel's face
C_MEANS = [(0 + 0 + 1.5 + 2) / 4, (0.5 * corner + 0 * edge + 0 * corner) / (2 * corner + edge)]
C_TOTALS = [4 * corner, 2 * corner + edge]
BY_HAND = {
    "A": A_AND_B | {"HD95": 1.9, "ASSD": 2.5 / 4},  # 95 % between 0 and 2; pooled mean
    # Pooled 0, 0, 0.5, 2: position 0.95 * 3 = 2.85. Mean of the directed means.
    "B": A_AND_B | {"HD95": 0.5 + 0.85 * 1.5, "ASSD": (1.0 + 0.25) / 2},
    "C": {
        "HD": 2.0,
        "HD95": 2.0,
        "ASD": C_MEANS[0],
        "ASD_ref": C_MEANS[1],
        "ASSD": (C_MEANS[0] * C_TOTALS[0] + C_MEANS[1] * C_TOTALS[1]) / sum(C_TOTALS),
        "NSD": (2 * corner + C_TOTALS[1]) / sum(C_TOTALS),
    },
}


@pytest.mark.parametrize("definition", SURFACE_DEFINITIONS)
def test_three_voxels_by_hand(definition):
    reference, prediction = voxels((0, 0, 1), (0, 0, 2)), voxels((0, 0, 2), (0, 0, 6))
    metrics = measure(reference, prediction, tolerance=0.5, definition=definition)
    assert metrics == pytest.approx(BY_HAND[definition], abs=1e-12)


def test_hd_is_the_larger_direction_and_asd_starts_from_the_prediction():
    reference, prediction = voxels((0, 0, 0), (3, 0, 0)), voxels((0, 0, 0))
    there, back = measure(reference, prediction), measure(prediction, reference)
    assert there["HD"] == back["HD"] == 15.0
    assert (there["ASD"], there["ASD_ref"]) == (0.0, 7.5) == (back["ASD_ref"], back["ASD"])


def test_edges_are_faces_towards_background_or_the_border():
    mask = np.zeros((5, 5), dtype=bool)
    mask[1:4, 1:4] = True
    expected = mask.copy()
    expected[2, 2] = False
    assert np.array_equal(edge_voxels(mask), expected)
    assert edge_voxels(np.ones((3, 3, 3), dtype=bool)).sum() == 26
    assert edge_voxels(np.ones((2, 3, 4), dtype=bool)).all()
    assert edge_voxels(np.ones((1, 3, 3), dtype=bool)).all()


def test_a_diagonal_neighbour_does_not_make_an_edge():
    mask = np.ones((3, 3), dtype=bool)
    mask[0, 0] = False
    assert not edge_voxels(mask)[1, 1]


@pytest.mark.parametrize("definition", SURFACE_DEFINITIONS)
def test_a_single_slice_is_a_2d_image(definition):
    reference, prediction = random_pair(3, (1, 12, 12), 0.6)
    flat = measure(reference[0], prediction[0], SPACING[1:], definition=definition)
    assert measure(reference, prediction, definition=definition) == flat
    assert flat["ASSD"] > 0


@pytest.mark.parametrize("definition", SURFACE_DEFINITIONS)
def test_identical_masks_are_perfect(definition):
    mask, _ = random_pair(0)
    metrics = measure(mask, mask, tolerance=0.0, definition=definition)
    assert metrics == dict.fromkeys(MILLIMETRE_METRICS, 0.0) | {"NSD": pytest.approx(1.0)}
    one = np.ones((1, 1, 1), dtype=bool)
    assert measure(one, one, definition=definition)["HD"] == 0.0


def test_wrong_arguments_are_named():
    mask = voxels((0, 0, 0))
    with pytest.raises(ValueError, match=r"shape \(4, 6, 8\), prediction \(4, 6, 7\)"):
        surface_distances(mask, mask[..., :-1], SPACING)
    for spacing in ((1.0, 1.0), (1.0, 0.0, 1.0)):
        with pytest.raises(ValueError, match="3 positive numbers"):
            surface_distances(mask, mask, spacing)
    with pytest.raises(ValueError, match="'D' is none of A, B, C"):
        surface_distances(mask, mask, SPACING, "D")
    for tolerance in (-1, math.nan):
        with pytest.raises(ValueError, match="tolerance_mm="):
            surface_metrics(surface_distances(mask, mask, SPACING), tolerance)
    with pytest.raises(ValueError, match="empty"):
        measure(mask, voxels())


def test_weighted_percentile_by_hand():
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([1.0, 6.0, 3.0])
    assert [weighted_percentile(values, weights, p) for p in (50, 60, 61, 90, 95, 100)] == [1, 1, 2, 2, 3, 3]
    tenths = np.full(20, 0.1)  # nineteen of them are 95 % but for rounding
    assert weighted_percentile(np.arange(20.0), tenths, 95) == 18


cases = st.tuples(st.integers(0, 2**32 - 1), st.sampled_from([0.03, 0.2, 0.6]))
spacings = st.tuples(*[st.sampled_from([0.5, 0.75, 1.0, 3.3, 5.0])] * 3)
definitions = st.sampled_from(list(SURFACE_DEFINITIONS))


@settings(max_examples=60, deadline=None)
@given(cases, spacings, definitions)
def test_properties(case, spacing, definition):
    reference, prediction = random_pair(case[0], density=case[1])
    if not reference.any() or not prediction.any():
        return

    def scores(first, second, spacing, tolerance=2.0):
        return measure(first, second, spacing, tolerance, definition)

    metrics = scores(reference, prediction, spacing)
    swapped = scores(prediction, reference, spacing)
    assert {n: swapped[n] for n in ("HD", "HD95", "ASSD", "NSD")} == pytest.approx(
        {n: metrics[n] for n in ("HD", "HD95", "ASSD", "NSD")}
    )
    assert (swapped["ASD"], swapped["ASD_ref"]) == pytest.approx((metrics["ASD_ref"], metrics["ASD"]))
    turned = (m.transpose(2, 0, 1) for m in (reference, prediction))
    assert scores(*turned, [spacing[2], spacing[0], spacing[1]]) == pytest.approx(metrics)
    moved = (np.pad(m, ((2, 1), (0, 3), (4, 0))) for m in (reference, prediction))
    assert scores(*moved, spacing) == pytest.approx(metrics)
    scaled = scores(reference, prediction, [2 * s for s in spacing], 4.0)
    assert scaled == pytest.approx({n: v * (1 if n == "NSD" else 2) for n, v in metrics.items()})


NUM_ORACLE_MASKS = 320


def random_masks(number=NUM_ORACLE_MASKS):
    """Pairs of sparse, blocky and dense masks, in 2D and 3D, with spacings from isotropic to 10 : 1."""
    for seed in range(number):
        generator = np.random.default_rng(seed)
        blocks = seed % 2  # every second pair is blocky, as segmentations are
        shape = tuple(generator.integers(2, 6 if blocks else 9, 2 if seed % 4 == 3 else 3))
        density = generator.choice([0.02, 0.15, 0.5, 0.85])
        pair = [generator.random(shape) < density for _ in range(2)]
        if blocks:
            pair = [np.kron(m, np.ones([2] * m.ndim)).astype(bool) for m in pair]
        for mask in pair:
            mask[tuple(generator.integers(0, mask.shape))] = True  # never empty
        spacing = tuple(float(s) for s in generator.choice([0.5, 0.7, 1.0, 2.5, 5.0], len(shape)))
        yield *pair, spacing, float(generator.choice([0.0, 0.71, 1.3, 3.1]))


@pytest.fixture(scope="module")
def monai():
    """MONAI's public functions as one function of two masks (reference, prediction), definition A."""
    pytest.importorskip("monai")
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MONAI's imports
        from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    def compute(reference, prediction, spacing, tolerance):
        masks = [torch.from_numpy(m[None, None]).float() for m in (prediction, reference)]
        options = {"include_background": True, "spacing": spacing}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {
                "HD": compute_hausdorff_distance(*masks, **options).item(),
                "HD95": compute_hausdorff_distance(*masks, percentile=95, **options).item(),
                "ASD": compute_average_surface_distance(*masks, **options).item(),
                "ASD_ref": compute_average_surface_distance(*masks[::-1], **options).item(),
                "ASSD": compute_average_surface_distance(*masks, symmetric=True, **options).item(),
                "NSD": compute_surface_dice(*masks, class_thresholds=[tolerance], **options).item(),
            }

    return compute


def test_definition_a_agrees_with_monai(monai):
    for reference, prediction, spacing, tolerance in random_masks():
        ours = measure(reference, prediction, spacing, tolerance, "A")
        theirs = monai(reference, prediction, spacing, tolerance)
        for name, value in theirs.items():  # rtol + atol, as MONAI computes in fp32
            np.testing.assert_allclose(
                ours[name], value, rtol=1e-6, atol=1e-6, err_msg=f"{name} {reference.shape} {spacing}"
            )


def naive_edges(mask):
    """Indices of the voxels of a mask that have a background neighbour across a face."""
    padded = np.pad(mask, 1)
    found = []
    for index in np.argwhere(mask):
        neighbours = [
            index + 1 + step * np.eye(mask.ndim, dtype=int)[axis] for axis in range(mask.ndim) for step in (-1, 1)
        ]
        if not all(padded[tuple(n)] for n in neighbours):
            found.append(index)
    return np.array(found)


def naive_distances(points, others):
    return np.array([np.linalg.norm(others - point, axis=1).min() for point in points])


def test_definition_b_agrees_with_a_naive_pooled_percentile():
    for reference, prediction, spacing, tolerance in random_masks():
        points = [naive_edges(m) * spacing for m in (prediction, reference)]
        there, back = naive_distances(*points), naive_distances(*points[::-1])
        pooled = np.hstack([there, back])
        ours = measure(reference, prediction, spacing, tolerance, "B")
        assert ours == pytest.approx(
            {
                "HD": max(there.max(), back.max()),
                "HD95": np.percentile(pooled, 95),
                "ASD": there.mean(),
                "ASD_ref": back.mean(),
                "ASSD": np.mean([there.mean(), back.mean()]),
                "NSD": ((there <= tolerance).sum() + (back <= tolerance).sum()) / len(pooled),
            },
            rel=1e-6,
            abs=1e-6,
        ), (reference.shape, spacing)


def naive_surfels(mask, spacing, table):
    """Places in mm and areas, corner by corner."""
    padded = np.pad(mask, 1).astype(int)
    places, areas = [], []
    for corner in np.ndindex(*(n + 1 for n in mask.shape)):
        code = 0
        for offset in np.ndindex(*[2] * mask.ndim):
            code = 2 * code + padded[tuple(np.add(corner, offset))]
        if table[code] > 0:
            places.append(np.multiply(corner, spacing))
            areas.append(table[code])
    return np.array(places), np.array(areas)


def naive_percentile(distances, areas, percent):
    total, seen = sum(areas), 0.0
    for distance, area in sorted(zip(distances, areas, strict=True)):
        seen += area
        if seen >= percent / 100 * total * (1 - 1e-9):  # a tie but for rounding
            return distance
    return None


def test_definition_c_agrees_with_naive_surfels():
    from nnunet_ext.evaluation.surfels import areas

    for reference, prediction, spacing, tolerance in random_masks():
        table = areas(spacing)  # itself held against MONAI's table in test_surfels.py
        (points, weights), (others, other_weights) = (naive_surfels(m, spacing, table) for m in (prediction, reference))
        there, back = naive_distances(points, others), naive_distances(others, points)
        near = weights[there <= tolerance].sum() + other_weights[back <= tolerance].sum()
        total = weights.sum() + other_weights.sum()
        ours = measure(reference, prediction, spacing, tolerance, "C")
        assert ours == pytest.approx(
            {
                "HD": max(there.max(), back.max()),
                "HD95": max(naive_percentile(there, weights, 95), naive_percentile(back, other_weights, 95)),
                "ASD": np.average(there, weights=weights),
                "ASD_ref": np.average(back, weights=other_weights),
                "ASSD": (there @ weights + back @ other_weights) / total,
                "NSD": near / total,
            },
            rel=1e-6,
            abs=1e-6,
        ), (reference.shape, spacing)


def test_definition_c_agrees_with_monais_subvoxel_surface_dice():
    pytest.importorskip("monai")
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.metrics import compute_surface_dice

        for reference, prediction, spacing, tolerance in random_masks(60):
            masks = [torch.from_numpy(m[None, None]).float() for m in (prediction, reference)]
            theirs = compute_surface_dice(
                *masks, class_thresholds=[tolerance], include_background=True, spacing=spacing, use_subvoxels=True
            ).item()
            ours = measure(reference, prediction, spacing, tolerance, "C")["NSD"]
            assert ours == pytest.approx(theirs, abs=1e-5), (reference.shape, spacing)  # its table is in fp32


def test_definitions_differ():
    reference, prediction = random_pair(1)
    assert len({measure(reference, prediction, definition=d)["HD95"] for d in SURFACE_DEFINITIONS}) == 3
    assert len(SURFACE_METRICS) == 6
