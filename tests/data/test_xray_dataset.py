import os
from pathlib import Path

import numpy as np
import pytest

from nnunet_ext.data.xray_dataset import read_xray_dataset, require_same_classes
from nnunet_ext.utilities.errors import UsageError


def edit(file: Path, old: str, new: str) -> None:
    content = file.read_text()
    assert old in content
    file.write_text(content.replace(old, new, 1))


def test_reads_the_table(make_xrays):
    folder = make_xrays(number=6)
    dataset = read_xray_dataset(700)
    assert (dataset.name, dataset.task, dataset.classes) == ("Dataset700_Xrays", "multiclass", ("healthy", "covid"))
    assert dataset.labels.tolist() == [[1, 0], [0, 1]] * 3
    assert dataset.labels.dtype == np.uint8
    assert dataset.indices("train").tolist() == [0, 1, 2, 3, 5]
    assert dataset.indices("test").tolist() == []
    assert dataset.class_counts("train") == {"healthy": 2, "covid": 3}
    assert dataset.class_counts("test") == {"healthy": 0, "covid": 0}
    assert dataset.image_paths()[0] == folder / "imagesTr/x000.png"
    assert dataset.patients[:2] == ("p0", "p1")


def test_columns_in_any_order_and_absolute_paths(make_xrays):
    folder = make_xrays(number=1)
    image = folder / "imagesTr/x000.png"
    (folder / "labels.csv").write_text(f"covid,split,healthy,patient,image\n1,train,0,p,{image}\n")
    dataset = read_xray_dataset(700)
    assert dataset.labels.tolist() == [[0, 1]]
    assert dataset.image_paths() == [image]


def test_multilabel_images_may_show_none_or_several(make_xrays):
    folder = make_xrays(number=3, task="multilabel")
    edit(folder / "labels.csv", "p0,train,1,0", "p0,train,0,0")
    edit(folder / "labels.csv", "p1,train,0,1", "p1,train,1,1")
    assert read_xray_dataset(700).labels.tolist() == [[0, 0], [1, 1], [1, 0]]


FAULTS = {
    "unknown column": ("labels.csv", "image,patient", "image,sex,patient", "unknown columns: sex; row 1 must be"),
    "class not in dataset.json": ("labels.csv", "covid", "flu", "missing columns: covid; unknown columns: flu"),
    "class not in the table": ("dataset.json", '"covid"', '"covid", "flu"', "missing columns: flu"),
    "repeated column": ("labels.csv", "healthy,covid", "healthy,covid,covid", "repeated columns: covid"),
    "not 0 or 1": ("labels.csv", "p1,train,0,1", "p1,train,0,2", "row 3: covid='2'; write 0 or 1"),
    "missing value": ("labels.csv", "p1,train,0,1", "p1,train,,1", "row 3: healthy=''; write 0 or 1"),
    "short row": ("labels.csv", "p1,train,0,1", "p1,train,0", "row 3: 4 values; give 5, one per column"),
    "no class": (
        "labels.csv",
        "p0,train,1,0",
        "p0,train,0,0",
        "row 2: 0 classes are 1; a multiclass image has exactly one",
    ),
    "two classes": ("labels.csv", "p0,train,1,0", "p0,train,1,1", "row 2: 2 classes are 1"),
    "unknown split": (
        "labels.csv",
        "p2,train",
        "p2,training",
        "row 4: split='training'; write one of train, val, test",
    ),
    "same image twice": ("labels.csv", "x002", "x001", "row 4: imagesTr/x001.png stands in row 3 too"),
    "missing image": ("labels.csv", "x002", "y002", "1 of 4 images do not exist in"),
    "unknown task": (
        "dataset.json",
        "multiclass",
        "regression",
        "task 'regression' is not one of multiclass, multilabel",
    ),
    "classes not distinct": ("dataset.json", '"covid"', '"healthy"', "must be a list of distinct names"),
    "no classification": ("dataset.json", "classification", "other", "is no X-ray data set with image-level labels"),
    "no table": ("dataset.json", "labels.csv", "labels2.csv", "labels2.csv does not exist"),
    "not JSON": ("dataset.json", "{", "", "is not valid JSON"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_with_file_and_fix(make_xrays, fault):
    file, old, new, message = FAULTS[fault]
    folder = make_xrays(number=4)
    edit(folder / file, old, new)
    with pytest.raises(UsageError) as error:
        read_xray_dataset(700)
    assert message in str(error.value)
    assert str(folder) in str(error.value)


def test_missing_images_are_listed_with_their_rows(make_xrays):
    folder = make_xrays(number=4)
    (folder / "imagesTr/x001.png").unlink()
    (folder / "imagesTr/x003.png").unlink()
    with pytest.raises(UsageError, match=r"row 3: imagesTr/x001\.png, row 5: imagesTr/x003\.png"):
        read_xray_dataset(700)


@pytest.mark.parametrize("content", ["", "image,patient,split,healthy,covid\n"])
def test_table_without_training_images(make_xrays, content):
    (make_xrays() / "labels.csv").write_text(content)
    with pytest.raises(UsageError, match=r"row 1 must be|no row with split=train"):
        read_xray_dataset(700)


@pytest.mark.usefixtures("nnunet_folders")
def test_unknown_data_set():
    with pytest.raises(UsageError, match="Dataset700_None does not exist"):
        read_xray_dataset("Dataset700_None")


def test_fingerprint_follows_labels_and_images(make_xrays):
    folder = make_xrays()
    first = read_xray_dataset(700).fingerprint
    assert read_xray_dataset(700).fingerprint == first
    os.utime(folder / "imagesTr/x000.png", ns=(0, 0))
    second = read_xray_dataset(700).fingerprint
    edit(folder / "labels.csv", "p0,", "p00,")
    assert len({first, second, read_xray_dataset(700).fingerprint}) == 3


def test_patients_in_several_splits(make_xrays):
    folder = make_xrays()
    assert read_xray_dataset(700).patients_in_several_splits() == []
    edit(folder / "labels.csv", "p4,val", "p0,val")
    edit(folder / "labels.csv", "p1,train", ",train")
    edit(folder / "labels.csv", "p9,val", ",val")
    assert read_xray_dataset(700).patients_in_several_splits() == ["p0"]


def test_data_sets_must_agree_in_task_and_classes(make_xrays):
    make_xrays(700)
    make_xrays(701)
    make_xrays(702, task="multilabel")
    make_xrays(703, classes=("covid", "healthy"))
    first = read_xray_dataset(700)
    require_same_classes([first, read_xray_dataset(701)])
    for other in (702, 703):
        with pytest.raises(UsageError, match=f"Dataset700_Xrays.*Dataset{other}_Xrays"):
            require_same_classes([first, read_xray_dataset(other)])
    with pytest.raises(UsageError, match="no X-ray data set"):
        require_same_classes([])
