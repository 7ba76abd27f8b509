import csv

import pytest

from nnunet_ext.dataset_conversion.chestxray14 import CLASSES, plan
from nnunet_ext.dataset_conversion.run import convert
from nnunet_ext.utilities.errors import UsageError

NAME = "Dataset701_ChestXray14"
ROWS = [
    ("00000001_000.png", "Cardiomegaly|Hernia", "1", "train"),
    ("00000001_001.png", "No Finding", "1", "train"),
    ("00026299_000.png", "Pleural_Thickening", "26299", "val"),
    ("00000013_000.png", "Atelectasis", "13", "test"),
]


@pytest.fixture
def nih(tmp_path, write_xray):
    source = tmp_path / "nih"
    for seed, (name, *_) in enumerate(ROWS):
        write_xray(source / f"images_00{seed % 2 + 1}" / "images" / name, seed)
    write_table(source, ROWS)
    write_splits(source, [r[0] for r in ROWS if r[3] != "test"], [r[0] for r in ROWS if r[3] == "test"])
    return source


def write_table(source, rows, header="Image Index,Finding Labels,Follow-up #,Patient ID"):
    lines = [header, *(f"{name},{findings},0,{patient}" for name, findings, patient, *_ in rows)]
    (source / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines) + "\n")


def write_splits(source, train_val, test):
    (source / "train_val_list.txt").write_text("\n".join(train_val))
    (source / "test_list.txt").write_text("\n".join(test))


def problems(conversion):
    return {case.name: case.problem for case in conversion.cases if case.problem}


def test_order_of_the_labels():
    assert len(CLASSES) == 14 and CLASSES[0] == "Atelectasis" and CLASSES[6] == "Pneumonia" and CLASSES[13] == "Hernia"


@pytest.mark.usefixtures("raw")
def test_nih_layout(nih):
    folder = convert(plan(nih), NAME, processes=1, quiet=True).folder
    rows = {row["image"]: row for row in csv.DictReader((folder / "labels.csv").read_text().splitlines())}
    assert list(rows) == sorted(f"imagesTr/{name}" for name, *_ in ROWS)
    for name, findings, patient, split in ROWS:
        row = rows[f"imagesTr/{name}"]
        assert (row["patient"], row["split"]) == (patient, split)
        assert {c for c in CLASSES if row[c] == "1"} == set(findings.split("|")) - {"No Finding"}
        assert (folder / "imagesTr" / name).is_file()


def test_bad_cases_are_named(nih, write_xray):
    (nih / "images_001" / "images" / ROWS[0][0]).unlink()
    write_xray(nih / "images_001" / "images" / "extra.png", 9)
    write_table(nih, [ROWS[0], ROWS[1], (ROWS[2][0], "Cough|Mass", "26299"), ROWS[3], ("new.png", "Mass", "7")])
    write_xray(nih / "images_001" / "images" / "new.png", 10)
    assert problems(plan(nih)) == {
        "00000001_000.png": "image file is missing",
        "00026299_000.png": "unknown finding Cough",
        "extra.png": "not in Data_Entry_2017_v2020.csv",
        "new.png": "in neither of train_val_list.txt and test_list.txt",
    }
    write_splits(nih, [r[0] for r in ROWS], [ROWS[3][0]])
    assert problems(plan(nih))[ROWS[3][0]] == "in both of train_val_list.txt and test_list.txt"


@pytest.mark.usefixtures("raw")
def test_patient_in_two_splits_is_refused(nih):
    write_splits(nih, [ROWS[0][0], ROWS[2][0], ROWS[3][0]], [ROWS[1][0]])
    with pytest.raises(UsageError, match="patient 1 would be in two splits"):
        convert(plan(nih), NAME, processes=1, quiet=True)


def test_missing_and_wrong_tables(nih, tmp_path):
    write_table(nih, ROWS, "Image Index,Finding Labels,Follow-up #,Patient")
    with pytest.raises(UsageError, match="lacks the column 'Patient ID'; it has Image Index"):
        plan(nih)
    write_table(nih, [("a.png", "Mass", "x")])
    with pytest.raises(UsageError, match="line 2: Patient ID 'x' is not a number"):
        plan(nih)
    (nih / "test_list.txt").unlink()
    with pytest.raises(UsageError, match=r"test_list.txt does not exist"):
        plan(nih)
    (nih / "Data_Entry_2017_v2020.csv").unlink()
    with pytest.raises(UsageError, match=r"must hold one Data_Entry_2017\*.csv, found 0"):
        plan(nih)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no PNG images"):
        plan(tmp_path / "empty")


def write_lists(folder, rows):
    folder.mkdir()
    for split in ("train", "val", "test"):
        lines = []
        for name, findings, patient, own in rows:
            if own == split:
                lines.append(",".join([name, *("1" if c in findings.split("|") else "0" for c in CLASSES), patient]))
        (folder / f"{split}_label.csv").write_text("\n".join(lines))


def test_lists_without_header_give_the_same(raw, nih, tmp_path):
    convert(plan(nih), NAME, processes=1, quiet=True)
    write_lists(tmp_path / "lists", ROWS)
    (nih / "Data_Entry_2017_v2020.csv").unlink()
    outcome = convert(plan(nih, lists=tmp_path / "lists"), "Dataset702_Lists", processes=1, quiet=True)
    assert (outcome.folder / "labels.csv").read_text() == (raw / NAME / "labels.csv").read_text()
    assert len(outcome.manifest["tables"]) == 3


@pytest.mark.usefixtures("raw")
def test_changed_list_is_noticed(nih, tmp_path):
    write_lists(tmp_path / "lists", ROWS)
    options = {"processes": 1, "quiet": True}
    convert(plan(nih, lists=tmp_path / "lists"), NAME, **options)
    table = tmp_path / "lists" / "train_label.csv"
    table.write_text(table.read_text().replace(",1,", ",0,", 1))
    with pytest.raises(UsageError, match="--overwrite"):
        convert(plan(nih, lists=tmp_path / "lists"), NAME, **options)


def test_wrong_line_in_a_list(nih, tmp_path):
    write_lists(tmp_path / "lists", ROWS)
    (tmp_path / "lists" / "val_label.csv").write_text("a.png,1,2,3\n")
    with pytest.raises(UsageError, match=r"val_label.csv line 1: expected file name, 14 times 0 or 1, patient"):
        plan(nih, lists=tmp_path / "lists")
