import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ext.evaluation.classification import auc, class_aucs, macro_auc


def naive_auc(scores, labels):
    pairs = [
        (p, n)
        for p, is_p in zip(scores, labels, strict=True)
        if is_p
        for n, is_q in zip(scores, labels, strict=True)
        if not is_q
    ]
    if not pairs:
        return math.nan
    return sum((p > n) + 0.5 * (p == n) for p, n in pairs) / len(pairs)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=30))
def test_equals_the_count_over_all_pairs(pairs):
    scores, labels = [score for score, _ in pairs], [label for _, label in pairs]
    assert auc(scores, labels) == pytest.approx(naive_auc(scores, labels), abs=1e-12, nan_ok=True)


@given(st.lists(st.tuples(st.integers(-50, 50), st.booleans()), min_size=1, max_size=30))
def test_only_the_order_counts(pairs):
    scores, labels = np.array([s for s, _ in pairs], float), [label for _, label in pairs]
    assert auc(np.exp(scores / 10), labels) == pytest.approx(auc(scores, labels), nan_ok=True)


def test_known_values():
    assert auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75
    assert auc([1, 2, 3], [0, 0, 1]) == 1
    assert auc([3, 2, 1], [0, 0, 1]) == 0
    assert auc([5, 5, 5], [0, 1, 1]) == 0.5
    assert math.isnan(auc([1, 2], [1, 1]))
    assert math.isnan(auc([1, 2], [0, 0]))
    assert math.isnan(auc([], []))


def test_unknown_labels_leave_their_class_only():
    probabilities = np.array([[0.9, 0.2], [0.1, 0.8], [0.95, 0.3]])
    labels = np.array([[1, 0], [0, 1], [np.nan, 1]])
    assert class_aucs(probabilities, labels) == [1.0, 1.0]
    labels[2] = [0, 0]
    assert class_aucs(probabilities, labels) == [0.5, 1.0]


def test_macro_auc_is_over_the_classes_that_have_one():
    assert macro_auc([0.5, math.nan, 1.0]) == 0.75
    assert math.isnan(macro_auc([math.nan]))
