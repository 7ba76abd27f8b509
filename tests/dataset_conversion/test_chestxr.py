import csv
from collections import Counter

import pytest

from nnunet_ext.dataset_conversion.chestxr import plan
from nnunet_ext.dataset_conversion.run import convert
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json

NAME = "Dataset700_ChestXR"


def rows(folder):
    return list(csv.DictReader((folder / "labels.csv").read_text().splitlines()))


@pytest.mark.usefixtures("raw")
def test_class_folders(class_folders):
    folder = convert(plan(class_folders), NAME, processes=1, quiet=True).folder
    table = rows(folder)
    counts = Counter((row["split"], *(row[c] for c in ("healthy", "pneumonia", "covid"))) for row in table)
    assert counts == {
        (split, *one): number
        for split, number in (("train", 18), ("val", 2), ("test", 6))
        for one in (("1", "0", "0"), ("0", "1", "0"), ("0", "0", "1"))
    }
    # Both train/normal and train/covid hold a 0.png.
    assert len({row["image"] for row in table}) == len({row["patient"] for row in table}) == 78
    assert all((folder / row["image"]).is_file() for row in table)
    assert load_json(folder / "dataset.json")["nnunet_ext"]["classification"]["task"] == "multiclass"


@pytest.mark.parametrize("name", ["COVID19", "covid-19", "covid_19"])
def test_aliases(class_folders, name):
    (class_folders / "train" / "covid").rename(class_folders / "train" / name)
    classes = {case.classes for case in plan(class_folders).cases if f"_{name}_" in case.name}
    assert classes == {(0, 0, 1)}


def test_unknown_and_missing_class(class_folders):
    (class_folders / "train" / "covid").rename(class_folders / "train" / "flu")
    with pytest.raises(UsageError, match="flu is no known class"):
        plan(class_folders)
    for file in (class_folders / "train" / "flu").iterdir():
        file.unlink()
    (class_folders / "train" / "flu").rmdir()
    with pytest.raises(UsageError, match="holds no image of class covid"):
        plan(class_folders)


def test_other_files_are_ignored(class_folders):
    expected = len(plan(class_folders).cases)
    (class_folders / "train" / "covid" / ".hidden.png").touch()
    (class_folders / "train" / "covid" / "notes.txt").touch()
    (class_folders / "train" / ".cache").mkdir()
    assert len(plan(class_folders).cases) == expected


@pytest.mark.usefixtures("raw")
def test_holdout_becomes_test(class_folders):
    folder = convert(plan(class_folders), NAME, holdout=["train_covid_3.png"], processes=1, quiet=True).folder
    assert {row["split"] for row in rows(folder) if row["image"].endswith("train_covid_3.png")} == {"test"}


def test_corrupt_image_is_named(raw, class_folders):
    file = class_folders / "train" / "covid" / "5.png"
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(UsageError, match=r"1 of 78 cases(.|\n)*train_covid_5.png: unreadable image"):
        convert(plan(class_folders), NAME, processes=1, quiet=True)
    assert not list(raw.iterdir())


def test_lists_decide(class_folders, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("normal/0.png\ntrain/pneumonia/1.png\n")
    (lists / "validation.txt").write_text("covid/2.png\n\n")
    (lists / "test.txt").write_text("covid/1.jpg\ncovid/missing.jpg\n")
    found = {case.name: (case.split, case.classes, case.problem) for case in plan(class_folders, lists=lists).cases}
    assert found == {
        "train_normal_0.png": ("train", (1, 0, 0), None),
        "train_pneumonia_1.png": ("train", (0, 1, 0), None),
        "train_covid_2.png": ("val", (0, 0, 1), None),
        "validation_covid_1.jpg": ("test", (0, 0, 1), None),
        "covid_missing.jpg": ("test", (0, 0, 1), "image file is missing"),
    }


def test_list_with_an_unknown_class(class_folders, tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    for name in ("train", "val", "test"):
        (lists / f"{name}.txt").write_text("flu/0.png\n")
    with pytest.raises(UsageError, match=r"the folder of 'flu/0.png' is no known class"):
        plan(class_folders, lists=lists)


@pytest.mark.real_data
@pytest.mark.usefixtures("raw")
def test_real_sample(real_data):
    folder = convert(plan(real_data / "chest_xr"), NAME, processes=1, quiet=True).folder
    table = rows(folder)
    assert [sum(int(row[c]) for row in table) for c in ("healthy", "pneumonia", "covid")] == [128, 128, 99]
    assert Counter(row["split"] for row in table) == {"train": 319, "val": 36}
