"""ChestX-ray14 (Wang et al., CVPR 2017): 112,120 X-rays of 30,805 patients with 14 labels mined from reports."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from nnunet_ext.dataset_conversion.base import (
    Case,
    Conversion,
    Split,
    list_file,
    needed_folder,
    reference,
    unique_by_name,
)
from nnunet_ext.utilities.errors import UsageError

HELP = "NIH ChestX-ray14: 112,120 X-rays, 14 labels (auxiliary data of the UCI paper)"
NAME = "ChestXray14"
OPTIONS = ("lists",)

CLASSES = (
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
)
NO_FINDING = "No Finding"
FIRST_VALIDATION_PATIENT = 26299
"""Patients of train_val_list.txt from this number on validate: the split of the UCI paper's lists."""


def plan(source: Path, lists: Path | None = None) -> Conversion:
    """X-rays below `source` with the labels and splits of the NIH's tables, or of the lists in the folder `lists`.

    `lists` holds train, val and test CSV files without header: file name, 14 times 0 or 1, patient.
    """
    from nnunet_ext.dataset_conversion.xray import classification, finish_xray, is_image, process_xray

    images = {f.name: f for f in sorted(needed_folder(source, "images/*.png").rglob("*")) if is_image(f)}
    if not images:
        raise UsageError(f"{source} holds no PNG images; expected images_001/images/00000001_000.png and so on")
    cases, tables = _from_nih_tables(source, images) if lists is None else _from_lists(source, lists, images)
    unknown = images.keys() - {case.name for case in cases}
    cases += [Case(name, "", "train", images[name], problem=f"not in {tables[0].name}") for name in unknown]
    return Conversion(
        converter="chestxray14",
        source=source,
        cases=unique_by_name(cases),
        dataset_json=classification("multilabel", CLASSES)
        | reference(
            "NIH ChestX-ray14",
            "https://nihcc.app.box.com/v/ChestXray-NIHCC",
            "no restrictions; cite Wang et al. and NIH",
        ),
        process=process_xray,
        finish=finish_xray,
        options={"lists": lists is not None},
        tables=tables,
    )


def _from_nih_tables(source: Path, images: Mapping[str, Path]) -> tuple[list[Case], tuple[Path, ...]]:
    tables = sorted(source.glob("Data_Entry_2017*.csv"))
    if len(tables) != 1:
        raise UsageError(f"{source} must hold one Data_Entry_2017*.csv, found {len(tables)} (or use --lists FOLDER)")
    split_files = source / "train_val_list.txt", source / "test_list.txt"
    train_val, test = (_lines(file) for file in split_files)
    cases = []
    for row in _rows(tables[0], ("Image Index", "Finding Labels", "Patient ID")):
        name, patient = row["Image Index"], row["Patient ID"]
        findings = set(row["Finding Labels"].split("|")) - {NO_FINDING}
        split: Split = "test" if name in test else "val" if int(patient) >= FIRST_VALIDATION_PATIENT else "train"
        problem = None
        if (name in test) == (name in train_val):
            problem = f"in {'both' if name in test else 'neither'} of train_val_list.txt and test_list.txt"
        elif findings - set(CLASSES):
            problem = f"unknown finding {', '.join(sorted(findings - set(CLASSES)))}"
        cases.append(_case(name, patient, split, tuple(int(c in findings) for c in CLASSES), source, images, problem))
    return cases, (tables[0], *split_files)


def _from_lists(source: Path, folder: Path, images: Mapping[str, Path]) -> tuple[list[Case], tuple[Path, ...]]:
    splits: tuple[Split, ...] = ("train", "val", "test")
    tables = tuple(list_file(folder, split, ".csv") for split in splits)
    cases = []
    for split, table in zip(splits, tables, strict=True):
        with table.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                if len(row) != len(CLASSES) + 2 or not set(row[1:-1]) <= {"0", "1"}:
                    raise UsageError(f"{table} line {number}: expected file name, 14 times 0 or 1, patient; got {row}")
                cases.append(_case(row[0], row[-1], split, tuple(map(int, row[1:-1])), source, images, None))
    return cases, tables


def _case(
    name: str,
    patient: str,
    split: Split,
    classes: tuple[int, ...],
    source: Path,
    images: Mapping[str, Path],
    problem: str | None,
) -> Case:
    name = Path(name).name
    problem = problem or (None if name in images else "image file is missing")
    return Case(name, patient, split, images.get(name, source / name), classes=classes, problem=problem)


def _rows(table: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise UsageError(f"{table} lacks the column {missing[0]!r}; it has {', '.join(reader.fieldnames or ())}")
        rows = list(reader)
    for number, row in enumerate(rows, start=2):
        if not (row["Patient ID"] or "").isdigit():
            raise UsageError(f"{table} line {number}: Patient ID {row['Patient ID']!r} is not a number")
    return rows


def _lines(file: Path) -> set[str]:
    if not file.is_file():
        raise UsageError(f"{file} does not exist; it comes with ChestX-ray14 (or use --lists FOLDER)")
    return set(file.read_text(encoding="utf-8").split())
