import math

import numpy as np
import pytest

from nnunet_ext.inference.xrays import list_xrays
from nnunet_ext.utilities.errors import UsageError

CLASSES = ("healthy", "covid")


@pytest.fixture
def dataset(tmp_path):
    """Three images and a table whose class columns are in another order than the model's."""
    for name in ("imagesTr/b.png", "imagesTr/a.PNG", "imagesTr/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    rows = ["image,patient,split,covid,other,healthy", "imagesTr/b.png,p,test,1,0,0", "imagesTr/a.PNG,p,train,0,0,1"]
    (tmp_path / "labels.csv").write_text("\n".join([*rows, "imagesTr/c.jpg,q,test,,1,0"]) + "\n")
    return tmp_path


def test_a_table_gives_its_rows_in_order_and_labels_by_name(dataset):
    xrays = list_xrays(dataset / "labels.csv", None, None, CLASSES)
    assert xrays.names == ["imagesTr/b.png", "imagesTr/a.PNG", "imagesTr/c.jpg"]
    assert xrays.files[0] == dataset / "imagesTr/b.png"
    assert np.array_equal(xrays.labels, [[0, 1], [1, 0], [0, math.nan]], equal_nan=True)


def test_a_split_is_selected(dataset):
    xrays = list_xrays(dataset / "labels.csv", None, "test", CLASSES)
    assert xrays.names == ["imagesTr/b.png", "imagesTr/c.jpg"]
    assert len(xrays.labels) == 2
    with pytest.raises(UsageError, match="holds no image of split val"):
        list_xrays(dataset / "labels.csv", None, "val", CLASSES)


def test_a_folder_is_searched_and_sorted(dataset):
    (dataset / "notes.txt").touch()
    xrays = list_xrays(dataset, None, None, CLASSES)
    assert xrays.names == ["imagesTr/a.PNG", "imagesTr/b.png", "imagesTr/c.jpg"]
    assert xrays.labels is None


def test_a_folder_with_a_table_knows_some_labels(dataset):
    (dataset / "imagesTr" / "d.png").touch()
    xrays = list_xrays(dataset / "imagesTr", dataset / "labels.csv", None, CLASSES)
    assert xrays.names == ["a.PNG", "b.png", "c.jpg", "d.png"]
    expected = [[1, 0], [0, 1], [0, math.nan], [math.nan, math.nan]]
    assert np.array_equal(xrays.labels, expected, equal_nan=True)
    assert list_xrays(dataset / "imagesTr", dataset / "labels.csv", "train", CLASSES).names == ["a.PNG"]


@pytest.mark.parametrize(
    "change,message",
    [
        (("covid,other", "cov,other"), "lacks the columns covid; the model's classes: healthy, covid"),
        (("test,1,0,0", "test,yes,0,0"), "row 2: covid='yes' is not 0, 1 or empty"),
        (("imagesTr/b.png", "imagesTr/gone.png"), r"1 images do not exist:\n.*gone\.png"),
    ],
)
def test_faults_of_the_table_are_named(dataset, change, message):
    table = dataset / "labels.csv"
    table.write_text(table.read_text().replace(*change))
    with pytest.raises(UsageError, match=message):
        list_xrays(table, None, None, CLASSES)


def test_arguments_that_do_not_fit_are_named(dataset, tmp_path):
    with pytest.raises(UsageError, match="neither a folder nor a table"):
        list_xrays(dataset / "absent", None, None, CLASSES)
    with pytest.raises(UsageError, match=r"absent\.csv does not exist"):
        list_xrays(dataset, dataset / "absent.csv", None, CLASSES)
    with pytest.raises(UsageError, match="--split test needs a table"):
        list_xrays(dataset, None, "test", CLASSES)
    with pytest.raises(UsageError, match="is a table already"):
        list_xrays(dataset / "labels.csv", dataset / "labels.csv", None, CLASSES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no image"):
        list_xrays(tmp_path / "empty", None, None, CLASSES)
