import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_recall_fscore_support

from nnunet_ext.evaluation.classification import score
from nnunet_ext.evaluation.classification.results import IntervalSettings
from nnunet_ext.evaluation.classification.roc import bootstrap_interval, delong_interval
from nnunet_ext.evaluation.classification.score import infer_task, patient_numbers, score_classes, threshold_measures
from nnunet_ext.utilities.errors import UsageError

NAN = math.nan
THREE = ["a", "b", "c"]


def one_hot(numbers, length=3):
    return np.eye(length)[numbers]


def test_unknown_labels_leave_their_class_only():
    probabilities = np.array([[0.9, 0.2], [0.1, 0.8], [0.95, 0.3]])
    labels = np.array([[1, 0], [0, 1], [NAN, 1]])
    a, b = score_classes(probabilities, labels, ["a", "b"]).rows
    assert (a["auc"], b["auc"]) == (1, 1)
    assert (a["positives"], a["negatives"], a["unknown"]) == (1, 1, 1)
    assert (b["positives"], b["negatives"], b["unknown"]) == (2, 1, 0)
    labels[2] = [0, 0]
    assert [row["auc"] for row in score_classes(probabilities, labels, ["a", "b"]).rows] == [0.5, 1]


def test_a_class_without_positives_is_undefined_and_stays():
    labels = np.array([[1, 0, 0], [0, 0, NAN], [0, 0, 1]])
    probabilities = np.array([[0.9, 0.1, 0.2], [0.1, 0.2, 0.3], [0.95, 0.1, 0.8]])
    result = score_classes(probabilities, labels, THREE)
    assert [row["auc"] for row in result.rows] == [0.5, pytest.approx(NAN, nan_ok=True), 1]
    assert math.isnan(result.rows[1]["ap"]) and math.isnan(result.rows[1]["sensitivity"])
    assert result.rows[1]["specificity"] == 1
    assert result.macro_auc == 0.75


def test_measures_at_the_threshold_by_hand():
    called, positive = np.array([1, 1, 1, 0, 0, 0, 0], bool), np.array([1, 1, 0, 1, 0, 0, 0], bool)
    assert threshold_measures(called, positive) == {
        "sensitivity": pytest.approx(2 / 3),
        "specificity": 3 / 4,
        "precision": pytest.approx(2 / 3),
        "f1": pytest.approx(4 / 6),
        **{"TP": 2, "FP": 1, "FN": 1, "TN": 3},
    }
    nothing = threshold_measures(np.zeros(2, bool), np.zeros(2, bool))
    assert nothing["specificity"] == 1
    assert all(math.isnan(nothing[name]) for name in ("sensitivity", "precision", "f1"))


def test_a_probability_equal_to_the_threshold_is_positive():
    result = score_classes(np.array([[0.5], [0.49]]), np.array([[1.0], [1.0]]), ["a"], threshold=0.5)
    assert (result.rows[0]["TP"], result.rows[0]["FN"]) == (1, 1)


def test_confusion_matrix_by_hand():
    truth, called = [0, 0, 0, 1, 1], [0, 0, 1, 1, 1]  # class c neither occurs nor is called
    labels = np.vstack([one_hot(truth), [1, NAN, 0]])
    probabilities = np.vstack([0.4 + 0.2 * one_hot(called), [0.1, 0.1, 0.8]])
    result = score_classes(probabilities, labels, THREE)
    assert result.task == "multiclass"
    assert result.confusion.matrix.tolist() == [[2, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert result.confusion.accuracy == 0.8
    assert result.confusion.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)


@given(st.lists(st.tuples(st.integers(0, 2), st.lists(st.floats(0, 1), min_size=3, max_size=3)), min_size=1))
def test_equals_scikit_learn(images):
    truth, probabilities = [number for number, _ in images], np.array([values for _, values in images])
    result = score_classes(probabilities, one_hot(truth), THREE, task="multiclass")
    called = probabilities.argmax(1)
    assert result.confusion.matrix.tolist() == confusion_matrix(truth, called, labels=[0, 1, 2]).tolist()
    if set(called) <= set(truth) and len(set(truth)) > 1:  # otherwise scikit-learn warns
        assert result.confusion.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, called))
    for c, row in enumerate(result.rows):
        expected = precision_recall_fscore_support(
            one_hot(truth)[:, c], probabilities[:, c] >= 0.5, average="binary", zero_division=np.nan
        )
        assert row["precision"] == pytest.approx(expected[0], nan_ok=True)
        assert row["sensitivity"] == pytest.approx(expected[1], nan_ok=True)


def test_the_task_is_seen_from_rows_that_are_wholly_known():
    assert infer_task(one_hot([0, 1])) == "multiclass"
    assert infer_task(np.array([[1, 0], [NAN, 0]])) == "multiclass"
    assert infer_task(np.array([[1, 0], [1, 1]])) == "multilabel"
    assert infer_task(np.array([[1, 0], [0, 0]])) == "multilabel"
    assert infer_task(np.array([[1.0], [1.0]])) == "multilabel"
    assert infer_task(np.array([[1, NAN]])) == "multilabel"
    assert score_classes(one_hot([0, 1]), one_hot([0, 1]), THREE, task="multilabel").confusion is None


def test_images_without_a_patient_are_their_own():
    assert patient_numbers(["p", "", "q", "", "p"]).tolist() == [0, 1, 2, 3, 0]
    assert patient_numbers([]).tolist() == []


def test_intervals_are_those_of_the_known_images_and_their_patients():
    generator = np.random.default_rng(0)
    labels = (np.arange(40) % 2).astype(float)[:, None]
    probabilities = np.clip(labels * 0.2 + generator.random((40, 1)) * 0.8, 0, 1)
    labels[[3, 8]] = NAN
    patients = [f"p{i // 4}" for i in range(40)]
    known = ~np.isnan(labels[:, 0])
    (row,) = score_classes(probabilities, labels, ["a"]).rows
    assert (row["auc_low"], row["auc_high"]) == delong_interval(probabilities[known, 0], labels[known, 0])
    settings = IntervalSettings("bootstrap", resamples=100, seed=5)
    (row,) = score_classes(probabilities, labels, ["a"], patients=patients, intervals=settings).rows
    numbers = np.arange(40)[known] // 4
    expected = bootstrap_interval(probabilities[known, 0], labels[known, 0], numbers, resamples=100, seed=5)
    assert (row["auc_low"], row["auc_high"]) == expected


def test_counts_patients():
    labels = one_hot([0, 1, 2])
    result = score_classes(labels, labels, THREE, patients=["p", "", "p"])
    assert (result.num_patients, result.num_without_patient) == (1, 1)
    assert score_classes(labels, labels, THREE).num_without_patient == 3


def test_bad_input_is_named():
    labels = one_hot([0, 1])
    with pytest.raises(UsageError, match=r"threshold 1.5 must be in \[0, 1\]"):
        score_classes(labels, labels, THREE, threshold=1.5)
    with pytest.raises(UsageError, match=r"threshold nan must"):
        score_classes(labels, labels, THREE, threshold=NAN)
    with pytest.raises(UsageError, match="task 'binary' is not one of multiclass, multilabel"):
        score_classes(labels, labels, THREE, task="binary")
    for wrong, number in (([1, 1, 0], 2), ([0, 0, 0], 0)):
        faulty = np.vstack([labels, wrong])
        with pytest.raises(UsageError, match=rf"1 of 3 images .*image number 3 has {number}"):
            score_classes(faulty, faulty, THREE, task="multiclass")
    with pytest.raises(UsageError, match=r"image z.png has 0"):
        score.confusion_matrix(faulty, faulty, ["x.png", "y.png", "z.png"])
