import csv
import json

import numpy as np
import pytest
from PIL import Image

from nnunet_ext.dataset_conversion.base import BadCaseError, Case, Conversion
from nnunet_ext.dataset_conversion.xray import classification, finish_xray, one_hot, process_xray


def test_image_is_linked_unchanged(tmp_path, write_xray):
    source = write_xray(tmp_path / "a.png", size=(9, 7))
    entry = process_xray(Case("a.png", "p", "train", source, classes=(0, 1)), tmp_path / "out")
    assert entry == {"shape": [7, 9], "mode": "L", "classes": [0, 1], "files": ["imagesTr/a.png"]}
    assert (tmp_path / "out" / "imagesTr" / "a.png").samefile(source)


def test_truncated_image(tmp_path, write_xray):
    source = write_xray(tmp_path / "a.png", size=(64, 64))
    source.write_bytes(source.read_bytes()[:-900])
    with pytest.raises(BadCaseError, match="unreadable image"):
        process_xray(Case("a.png", "p", "train", source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_file_that_is_no_image(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(BadCaseError, match="unreadable image"):
        process_xray(Case("a.png", "p", "train", tmp_path / "a.png"), tmp_path / "out")


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3)])
def test_image_of_one_value(tmp_path, shape):
    Image.fromarray(np.full(shape, 7, np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(BadCaseError, match="empty"):
        process_xray(Case("a.png", "p", "train", tmp_path / "a.png"), tmp_path / "out")


def test_labels_and_dataset_json(tmp_path):
    conversion = Conversion(
        "x", tmp_path, (), {"name": "N"} | classification("multilabel", ("A", "B")), process_xray, finish_xray
    )
    entries = {
        "a.png": {"patient": "1", "split": "val", "classes": [1, 1], "files": ["imagesTr/a.png"]},
        "b.jpg": {"patient": "2", "split": "test", "classes": [0, 1], "files": ["imagesTr/b.jpg"]},
    }
    finish_xray(tmp_path, conversion, entries)
    rows = list(csv.reader((tmp_path / "labels.csv").read_text().splitlines()))
    assert rows == [
        ["image", "patient", "split", "A", "B"],
        ["imagesTr/a.png", "1", "val", "1", "1"],
        ["imagesTr/b.jpg", "2", "test", "0", "1"],
    ]
    assert json.loads((tmp_path / "dataset.json").read_text()) == {
        "name": "N",
        "channel_names": {"0": "X-ray"},
        "file_ending": ".png",
        "numTraining": 2,
        "labels": {"background": 0},
        "nnunet_ext": {
            "classification": {"task": "multilabel", "classes": ["A", "B"], "labels_file": "labels.csv"},
        },
    }


def test_one_hot():
    assert one_hot(1, 3) == (0, 1, 0)
