from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_ext.evaluation.lesions import LesionCounts, count_lesions, lesion_metrics


def test_lesions_by_hand():
    reference, prediction = np.zeros((3, 6, 8), dtype=bool), np.zeros((3, 6, 8), dtype=bool)
    reference[0, 0, 0] = reference[1, 1, 1] = True  # one lesion: the two touch at a corner
    reference[0, 0, 4:6] = True
    reference[2, 5, 7] = True  # missed
    prediction[1, 1, 1] = prediction[0, 0, 4] = True
    prediction[0, 0, 2] = False
    prediction[2, 5, 0] = True  # false
    counts = count_lesions(reference, prediction)
    assert counts == LesionCounts(reference_lesions=3, prediction_lesions=3, missed_lesions=1, false_lesions=1)
    assert lesion_metrics(counts) == pytest.approx({"LSEN": 2 / 3, "LPPV": 2 / 3, "LF1": 2 / 3})


def test_one_prediction_may_find_two_lesions():
    reference, prediction = np.zeros((4, 9), dtype=bool), np.zeros((4, 9), dtype=bool)
    reference[1, 1] = reference[1, 7] = True
    prediction[1] = True
    counts = count_lesions(reference, prediction)
    assert counts == LesionCounts(2, 1, 0, 0)
    assert lesion_metrics(counts)["LF1"] == 1.0


def test_in_2d_pixels_touch_at_corners():
    assert count_lesions(np.eye(4, dtype=bool), np.eye(4, dtype=bool)) == LesionCounts(1, 1, 0, 0)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((0, 0, 0, 0), (math.nan, math.nan, math.nan)),
        ((2, 0, 2, 0), (0.0, math.nan, 0.0)),
        ((0, 3, 0, 3), (math.nan, 0.0, 0.0)),
        ((1, 1, 1, 1), (0.0, 0.0, 0.0)),
        ((4, 2, 3, 1), (1 / 4, 1 / 2, 1 / 3)),
    ],
)
def test_rules_of_empty_masks(counts, expected):
    assert tuple(lesion_metrics(LesionCounts(*counts)).values()) == pytest.approx(expected, nan_ok=True)


def test_a_view_of_a_larger_array():
    volume = np.zeros((6, 6, 6), dtype=bool)
    volume[2:4, 2:4, 2:4] = True
    assert count_lesions(volume[::2], volume[::2]) == LesionCounts(1, 1, 0, 0)
