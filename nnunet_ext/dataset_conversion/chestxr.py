"""ChestXR and other three-class collections: one folder per class (healthy, pneumonia, covid)."""

from __future__ import annotations

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
from nnunet_ext.dataset_conversion.folds import shuffled
from nnunet_ext.utilities.errors import UsageError

HELP = "ChestXR or any train/CLASS/*.png: healthy, pneumonia, covid (auxiliary data of the UCI paper)"
NAME = "ChestXR"
OPTIONS = ("lists",)

CLASSES = ("healthy", "pneumonia", "covid")
ALIASES = {
    **dict.fromkeys(("healthy", "normal"), 0),
    "pneumonia": 1,
    **dict.fromkeys(("covid", "covid19", "covid-19", "covid_19"), 2),
}
SPLIT_FOLDERS: dict[str, Split] = {"train": "train", "validation": "test", "val": "test", "test": "test"}
VALIDATION_SHARE = 0.1


def plan(source: Path, lists: Path | None = None) -> Conversion:
    """X-rays in ``train/CLASS`` and, if there, ``validation/CLASS`` or ``test/CLASS``, which become test images.

    A tenth of each class of ``train`` validates, chosen by a seed. With `lists`, a folder of train, val and test text
    files with one relative path per line, these decide. Patients are unknown: each image counts as one.
    """
    from nnunet_ext.dataset_conversion.xray import classification, finish_xray, process_xray

    needed_folder(source / "train", "train/healthy, train/pneumonia and train/covid")
    cases, tables = (_from_folders(source), ()) if lists is None else _from_lists(source, lists)
    return Conversion(
        converter="chestxr",
        source=source,
        cases=unique_by_name(cases),
        dataset_json=classification("multiclass", CLASSES)
        | reference(
            "Chest X-rays in the layout of ChestXR",
            "https://cxr-covid19.grand-challenge.org/Dataset/",
            "for the challenge only; ask its organisers",
        ),
        process=process_xray,
        finish=finish_xray,
        options={"lists": lists is not None},
        tables=tables,
    )


def _from_folders(source: Path) -> list[Case]:
    from nnunet_ext.dataset_conversion.xray import is_image

    cases = []
    for folder, split in SPLIT_FOLDERS.items():
        for class_folder in sorted(f for f in (source / folder).glob("[!.]*") if f.is_dir()):
            if class_folder.name.lower() not in ALIASES:
                known = ", ".join(ALIASES)
                raise UsageError(f"{class_folder} is no known class; rename or remove it (known: {known})")
            names = {f.name: f for f in class_folder.iterdir() if is_image(f)}
            validation = shuffled(names)[: round(VALIDATION_SHARE * len(names))] if split == "train" else []
            cases += [_case(source, f, "val" if name in validation else split) for name, f in names.items()]
    for index, name in enumerate(CLASSES):
        if not any(c.classes is not None and c.classes[index] for c in cases if c.split == "train"):
            raise UsageError(f"{source / 'train'} holds no image of class {name}; expected train/{name}/*.png or *.jpg")
    return cases


def _from_lists(source: Path, folder: Path) -> tuple[list[Case], tuple[Path, ...]]:
    splits: tuple[Split, ...] = ("train", "val", "test")
    tables = tuple(list_file(folder, split, ".txt") for split in splits)
    cases = []
    for split, table in zip(splits, tables, strict=True):
        for line in filter(None, map(str.strip, table.read_text(encoding="utf-8").splitlines())):
            # The published lists start below train/ (train and val) and validation/ (test).
            roots = (source, source / "train") if split != "test" else (source, source / "validation", source / "test")
            found = [root / line for root in roots if (root / line).is_file()]
            if Path(line).parent.name.lower() not in ALIASES:
                raise UsageError(f"{table}: the folder of {line!r} is no known class ({', '.join(ALIASES)})")
            cases.append(_case(source, found[0] if found else source / line, split, missing=not found))
    return cases, tables


def _case(source: Path, image: Path, split: Split, missing: bool = False) -> Case:
    """A case named after its path, since two folders may hold files of one name."""
    from nnunet_ext.dataset_conversion.xray import one_hot

    name = "_".join(image.relative_to(source).parts)
    classes = one_hot(ALIASES[image.parent.name.lower()], len(CLASSES))
    return Case(name, name, split, image, classes=classes, problem="image file is missing" if missing else None)
