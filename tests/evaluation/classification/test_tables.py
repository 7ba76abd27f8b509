import json

import numpy as np
import pytest

from nnunet_ext.evaluation.classification.tables import read_scored_images, task_of_dataset
from nnunet_ext.utilities.errors import UsageError

LABELS = """image,patient,split,sick,healthy
imagesTr/a.png,p1,train,1,0
imagesTr/b.png,p2,test,0,1
imagesTr/c.png,,test,,1
"""
PREDICTIONS = """image,healthy,sick
imagesTr/c.png,0.25,0.75
imagesTr/a.png,0.1,0.9
imagesTr/b.png,0.8,0.2
"""


@pytest.fixture
def read(tmp_path):
    def call(predictions=PREDICTIONS, labels=LABELS, split=None):
        for name, text in (("predictions.csv", predictions), ("labels.csv", labels)):
            if text is not None:
                (tmp_path / name).write_text(text)
        return read_scored_images(tmp_path / "predictions.csv", tmp_path / "labels.csv", split)

    return call


def test_images_are_matched_by_name_and_classes_by_column(read):
    images = read()
    assert images.classes == ["healthy", "sick"]
    assert images.names == ["imagesTr/c.png", "imagesTr/a.png", "imagesTr/b.png"]
    assert images.probabilities.tolist() == [[0.25, 0.75], [0.1, 0.9], [0.8, 0.2]]
    np.testing.assert_array_equal(images.labels, [[1, np.nan], [0, 1], [1, 0]])
    assert images.patients == ["", "p1", "p2"]
    assert images.notes == []


def test_predictions_of_other_splits_are_left_out_and_said(read):
    images = read(split="test")
    assert images.names == ["imagesTr/c.png", "imagesTr/b.png"]
    assert images.notes == ["1 predictions of other splits than test are left out"]


def test_columns_without_a_probability_are_said(read):
    assert read(
        PREDICTIONS.replace("healthy", "x"),
        LABELS.replace("healthy", "x,y").replace(",1\n", ",1,0\n").replace(",0\n", ",0,0\n", 1),
    ).notes == ["columns of labels.csv without a probability, left out: y"]


def test_one_folder_before_all_names(read):
    images = read(PREDICTIONS.replace("imagesTr/", ""))
    assert images.names[0] == "imagesTr/c.png"
    assert images.notes == ["names of the predictions were looked up in labels.csv with imagesTr/ before them"]
    with pytest.raises(UsageError, match=r"1 of 3 images .*\(imagesTr/d.png\)"):
        read(PREDICTIONS.replace("imagesTr/", "").replace("a.png", "d.png"))


def test_two_folders_that_fit_are_none(read):
    more = "".join(line.replace("imagesTr", "other") + "\n" for line in LABELS.splitlines()[1:])
    with pytest.raises(UsageError, match="3 of 3 images"):
        read(PREDICTIONS.replace("imagesTr/", ""), LABELS + more)


def test_patient_and_split_may_be_absent(read):
    labels = "image,sick,healthy\nimagesTr/a.png,1,0\nimagesTr/b.png,0,1\nimagesTr/c.png,0,1\n"
    assert read(labels=labels).patients == ["", "", ""]
    with pytest.raises(UsageError, match="lacks the columns split"):
        read(labels=labels, split="test")


@pytest.mark.parametrize(
    "predictions,labels,split,message",
    [
        (None, LABELS, None, "predictions.csv does not exist"),
        (PREDICTIONS, None, None, "labels.csv does not exist"),
        ("", LABELS, None, "predictions.csv lacks the columns image"),
        ("image,sick\n", LABELS, None, "predictions.csv has no row"),
        ("image\nimagesTr/a.png\n", LABELS, None, "no column of a class"),
        ("name,sick\na,1\n", LABELS, None, "lacks the columns image; its first row is: name,sick"),
        ("image,sick,sick\na,1,1\n", LABELS, None, "columns of the same name: sick"),
        ("image,covid\nimagesTr/a.png,1\n", LABELS, None, "labels.csv lacks the columns covid"),
        (PREDICTIONS.replace("0.25", "1.25"), LABELS, None, r"row 2: healthy='1.25' is not a probability in \[0, 1\]"),
        (PREDICTIONS.replace("0.25", "nan"), LABELS, None, "row 2: healthy='nan' is not a probability"),
        (PREDICTIONS.replace("0.25", ""), LABELS, None, "row 2: healthy='' is not a probability"),
        (PREDICTIONS.replace("0.1,", ""), LABELS, None, "row 3: 2 values; give 3"),
        (PREDICTIONS + "imagesTr/c.png,0,1\n", LABELS, None, "row 5: imagesTr/c.png stands in row 2 too"),
        (PREDICTIONS, LABELS.replace("p1,train,1", "p1,train,-1"), None, "row 2: sick='-1' is not 0, 1 or empty"),
        (PREDICTIONS, LABELS, "val", "labels.csv has no row with split=val; it has: test, train"),
        (PREDICTIONS + "imagesTr/z.png,0,1\n", LABELS, None, r"1 of 4 images of .* no row in .*\(imagesTr/z.png\)"),
        ("image,sick\nimagesTr/a.png,1\n", LABELS, None, r"2 of 3 images .*split train: use --split train"),
        (
            "image,sick\nimagesTr/b.png,1\n",
            LABELS,
            "test",
            r"1 of 2 images of .*split test.*\(imagesTr/c.png\); classify",
        ),
        ("image,sick\n\xff\0", LABELS, None, "row 2: 1 values|not a table"),
    ],
)
def test_bad_input_is_named(read, predictions, labels, split, message):
    with pytest.raises(UsageError, match=message):
        read(predictions, labels, split)


def test_a_binary_file_is_no_table(read, tmp_path):
    (tmp_path / "predictions.csv").write_bytes(b"image,sick\n\xff\xfe")
    with pytest.raises(UsageError, match="predictions.csv is not a table of comma-separated values"):
        read(None)


def test_the_task_of_the_data_set(tmp_path):
    labels = tmp_path / "labels.csv"
    assert task_of_dataset(labels) is None
    for content, task in (({}, None), ({"nnunet_ext": {"classification": {"task": "multilabel"}}}, "multilabel")):
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        assert task_of_dataset(labels) == task
