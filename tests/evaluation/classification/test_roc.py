import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from nnunet_ext.evaluation.classification.roc import (
    auc,
    average_precision,
    bootstrap_interval,
    delong_interval,
    delong_variance,
)

PAIRS = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=30)


def split(pairs):
    return [score for score, _ in pairs], [label for _, label in pairs]


def wins(scores, labels):
    """(positives, negatives): 1 where the positive scores higher, one half for a tie."""
    scores, labels = np.array(scores, float), np.array(labels, bool)
    positive, negative = scores[labels][:, None], scores[~labels][None]
    return (positive > negative) + 0.5 * (positive == negative)


@given(PAIRS)
def test_auc_equals_the_count_over_all_pairs(pairs):
    scores, labels = split(pairs)
    expected = wins(scores, labels).mean() if 0 < sum(labels) < len(labels) else math.nan
    assert auc(scores, labels) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(st.lists(st.tuples(st.integers(-50, 50), st.booleans()), min_size=1, max_size=30))
def test_only_the_order_counts(pairs):
    scores, labels = np.array([s for s, _ in pairs], float), [label for _, label in pairs]
    assert auc(np.exp(scores / 10), labels) == pytest.approx(auc(scores, labels), nan_ok=True)
    assert delong_variance(np.exp(scores / 10), labels) == pytest.approx(delong_variance(scores, labels), nan_ok=True)


def test_known_values_of_the_auc():
    assert auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75
    assert auc([1, 2, 3], [0, 0, 1]) == 1
    assert auc([3, 2, 1], [0, 0, 1]) == 0
    assert auc([5, 5, 5], [0, 1, 1]) == 0.5
    assert math.isnan(auc([1, 2], [1, 1]))
    assert math.isnan(auc([1, 2], [0, 0]))
    assert math.isnan(auc([], []))


def test_average_precision_by_hand():
    # from high to low: positive (precision 1, half found), negative, positive (precision 2 / 3, all found)
    assert average_precision([0.9, 0.8, 0.7], [1, 0, 1]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0]) == 0.25  # a tie is one threshold
    assert average_precision([0.2, 0.1], [1, 1]) == 1
    assert math.isnan(average_precision([0.2, 0.1], [0, 0]))
    assert math.isnan(average_precision([], []))


@given(PAIRS)
def test_average_precision_equals_scikit_learn(pairs):
    scores, labels = split(pairs)
    if any(labels):
        assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


@given(PAIRS)
def test_delong_equals_the_structural_components_over_all_pairs(pairs):
    scores, labels = split(pairs)
    num_positive, num_negative = sum(labels), len(labels) - sum(labels)
    if min(num_positive, num_negative) < 2:
        assert math.isnan(delong_variance(scores, labels))
        return
    area = wins(scores, labels)
    of_positives, of_negatives = area.mean(1), area.mean(0)
    variance = sum((v - area.mean()) ** 2 for v in of_positives) / (num_positive - 1) / num_positive
    variance += sum((v - area.mean()) ** 2 for v in of_negatives) / (num_negative - 1) / num_negative
    assert delong_variance(scores, labels) == pytest.approx(variance, abs=1e-12)


@given(PAIRS)
def test_the_interval_holds_the_auc_and_stays_a_probability(pairs):
    scores, labels = split(pairs)
    area, (low, high) = auc(scores, labels), delong_interval(scores, labels)
    if min(sum(labels), len(labels) - sum(labels)) < 2 or area in (0, 1):
        assert math.isnan(low) and math.isnan(high)
    else:
        assert 0 <= low <= area + 1e-12 and area - 1e-12 <= high <= 1


def test_the_interval_by_hand():
    scores, labels = [0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]  # AUC 3 / 4; both means are over 1 / 2 and 1
    assert delong_variance(scores, labels) == pytest.approx(0.125 / 2 + 0.125 / 2)
    half_width = 1.959964 * math.sqrt(0.125) / (0.75 * 0.25)
    low, high = delong_interval(scores, labels)
    assert math.log(low / (1 - low)) == pytest.approx(math.log(3) - half_width, rel=1e-6)
    assert math.log(high / (1 - high)) == pytest.approx(math.log(3) + half_width, rel=1e-6)


def normal_sample(generator, num_positive, num_negative, distance=1.5):
    labels = np.arange(num_positive + num_negative) < num_positive
    return generator.normal(size=len(labels)) + distance * labels, labels


def test_95_of_100_intervals_cover_the_true_auc():
    generator = np.random.default_rng(0)
    truth = 0.8555778168267576  # P(N(1.5, 1) > N(0, 1)) = Phi(1.5 / sqrt 2)
    intervals = [delong_interval(*normal_sample(generator, 40, 60)) for _ in range(2000)]
    assert np.mean([low <= truth <= high for low, high in intervals]) == pytest.approx(0.95, abs=0.015)


def test_bootstrap_agrees_with_delong_for_independent_images():
    scores, labels = normal_sample(np.random.default_rng(1), 150, 250)
    bootstrapped = bootstrap_interval(scores, labels, np.arange(400))
    assert bootstrapped == pytest.approx(delong_interval(scores, labels), abs=0.01)
    assert bootstrapped[0] < auc(scores, labels) < bootstrapped[1]


def test_bootstrap_is_seeded_and_ignores_the_order_of_the_images():
    scores, labels = normal_sample(np.random.default_rng(2), 20, 30)
    patients = np.arange(50) // 2 * 7
    first = bootstrap_interval(scores, labels, patients, resamples=200, seed=3)
    assert first == bootstrap_interval(scores, labels, patients, resamples=200, seed=3)
    assert first != bootstrap_interval(scores, labels, patients, resamples=200, seed=4)
    assert first == bootstrap_interval(scores[::-1], labels[::-1], patients[::-1], resamples=200, seed=3)


def test_copies_of_an_image_do_not_narrow_the_bootstrap_over_patients():
    scores, labels = normal_sample(np.random.default_rng(3), 30, 40)
    patients = np.arange(70)
    single = bootstrap_interval(scores, labels, patients)
    copied = bootstrap_interval(np.tile(scores, 4), np.tile(labels, 4), np.tile(patients, 4))
    assert copied == pytest.approx(single, abs=1e-12)
    as_images = bootstrap_interval(np.tile(scores, 4), np.tile(labels, 4), np.arange(280))
    assert as_images[1] - as_images[0] < 0.6 * (single[1] - single[0])


def test_every_resample_has_both_classes_when_all_patients_with_negatives_have_positives():
    scores, labels = [3, 1, 2, 4, 5, 0.5, 6], [1, 0, 1, 0, 1, 0, 1]
    low, high = bootstrap_interval(scores, labels, [0, 0, 1, 1, 2, 2, 3], resamples=500)
    assert 0 <= low < high <= 1


@pytest.mark.parametrize(
    "scores,labels,patients",
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], [0, 1, 2, 3]),  # AUC 1
        ([1, 3, 2, 4], [0, 0, 1, 1], [0, 1, 2, 2]),  # all positives of one patient
        ([1, 3, 2, 4], [0, 0, 1, 1], [0, 0, 1, 2]),  # all negatives of one patient
        ([1, 2], [1, 1], [0, 1]),
        ([], [], []),
    ],
)
def test_bootstrap_is_undefined_where_it_would_claim_certainty(scores, labels, patients):
    assert all(math.isnan(end) for end in bootstrap_interval(scores, labels, patients))


def test_bootstrap_counts_ties_as_one_half():
    assert bootstrap_interval([1, 1, 1, 1], [0, 0, 1, 1], [0, 1, 2, 3], resamples=100) == (0.5, 0.5)
    scores, labels = normal_sample(np.random.default_rng(4), 150, 250)
    scores = scores.round()
    assert bootstrap_interval(scores, labels, np.arange(400)) == pytest.approx(
        delong_interval(scores, labels), abs=0.01
    )


def test_a_patient_who_is_alone_in_a_stratum_is_in_every_resample():
    scores = [*[9] * 10, 1, 2, 2, 3]  # ten positives of patient 0 above all; patients 1 and 2 rank theirs wrongly
    labels = [*[1] * 10, 1, 0, 1, 0]
    low, high = bootstrap_interval(scores, labels, [*[0] * 10, 1, 1, 2, 2])
    assert 10 / 12 - 1e-12 <= low <= auc(scores, labels) <= high
