import csv
import json
import math

import numpy as np
import pytest

from nnunet_ext.evaluation.classification.results import COLUMNS, IntervalSettings
from nnunet_ext.evaluation.classification.score import score_classes
from nnunet_ext.utilities.errors import UsageError

PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.4, 0.5, 0.1]])
LABELS = np.eye(3)[[0, 0, 1, 1, 1]]


def result(labels=LABELS, **arguments):
    return score_classes(PROBABILITIES, labels, ["healthy", "pneumonia", "covid"], **arguments)


def strict(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_files(tmp_path):
    written = result().save(tmp_path / "new", split="test")
    assert [path.name for path in written] == ["classification.csv", "classification.json"]
    with written[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["class"] for row in rows] == ["healthy", "pneumonia", "covid"]
    assert float(rows[0]["auc"]) == pytest.approx(5 / 6)
    assert rows[2]["auc"] == "nan" and rows[2]["specificity"] == "1.0" and rows[2]["negatives"] == "5"
    content = strict(written[1])
    assert content["split"] == "test" and content["num_images"] == 5 and content["task"] == "multiclass"
    assert content["classes"]["covid"]["auc"] is None and content["classes"]["covid"]["positives"] == 0
    assert content["classes"]["healthy"]["TP"] == 2
    assert content["macro_auc"] == pytest.approx(5 / 6)
    assert content["confusion_matrix"] == {
        "classes": ["healthy", "pneumonia", "covid"],
        "matrix": [[2, 0, 0], [1, 2, 0], [0, 0, 0]],
        "accuracy": 0.8,
        "balanced_accuracy": pytest.approx((1 + 2 / 3) / 2),
    }
    assert content["interval"]["method"] == "delong" and content["interval"]["level"] == 0.95


def test_a_multilabel_result_has_no_matrix_but_four_counts_per_class(tmp_path):
    found = result(task="multilabel")
    assert strict(found.save(tmp_path)[1])["confusion_matrix"] is None
    lines = found.table().splitlines()
    assert lines[-4].split() == ["class", "TP", "FP", "FN", "TN"]
    assert lines[-3].split() == ["healthy", "2", "1", "0", "2"]


def test_the_table_shows_what_is_undefined():
    lines = result().table().splitlines()
    assert lines[0].startswith("5 images, multiclass") and "0.5" in lines[0]
    covid = next(line for line in lines if line.split()[:1] == ["covid"])
    assert covid.split()[1:4] == ["undefined", "undefined", "undefined"]
    healthy = next(line for line in lines if line.split()[:1] == ["healthy"])
    assert healthy.split()[1] == "0.8333" and healthy.split()[3] == "-"
    assert "macro AUC 0.8333" in lines
    assert [line.split() for line in lines[-4:-1]] == [
        ["healthy", "2", "0", "0"],
        ["pneumonia", "1", "2", "0"],
        ["covid", "0", "0", "0"],
    ]
    assert lines[-1] == "accuracy 0.8000, balanced accuracy 0.8333"


def test_a_result_without_any_known_label():
    found = result(np.full((5, 3), math.nan), task="multiclass")
    assert math.isnan(found.macro_auc) and math.isnan(found.confusion.accuracy)
    assert math.isnan(found.confusion.balanced_accuracy)
    assert found.content()["macro_auc"] is None and found.content()["confusion_matrix"]["accuracy"] is None
    assert "accuracy undefined" in found.table()


def test_notes_say_what_the_intervals_assume():
    repeated, single = ["p", "p", "q", "q", "r"], ["p", "q", "r", "s", "t"]
    bootstrap = IntervalSettings("bootstrap", 100)
    assert "5 images of 3 patients: DeLong assumes independent" in result(patients=repeated).table()
    assert not any("patient" in note for note in result(patients=single).notes())
    assert not any("patient" in note for note in result(patients=repeated, intervals=bootstrap).notes())
    assert "5 images have no patient" in result().notes()[0]
    partly = result(patients=["p", "q", "", "", ""]).notes()
    assert "3 images have no patient" in partly[0] and not any("DeLong" in note for note in partly)
    assert "100 resamples, seed 0" in result(intervals=bootstrap).table()


def test_notes_name_classes_without_auc_and_images_without_labels():
    notes = result(np.vstack([LABELS[:4], [math.nan, 0, 1]])).notes()
    assert any(note.endswith("left out of macro AUC: covid") for note in result().notes())
    assert any(note.startswith("1 images with an unknown label") for note in notes)


@pytest.mark.parametrize(
    "arguments,message",
    [
        (("wald",), "'wald' is not one of delong, bootstrap"),
        (("bootstrap", 99), "resamples=99"),
        (("delong", 100, -1), "seed=-1"),
    ],
)
def test_settings_that_cannot_be_are_named(arguments, message):
    with pytest.raises(UsageError, match=message):
        IntervalSettings(*arguments)
