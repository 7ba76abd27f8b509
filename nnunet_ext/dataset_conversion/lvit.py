"""The layout of LViT (Li et al., IEEE TMI 43, 2024): {Train,Val,Test}_Folder of 2D images, masks and sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nnunet_ext.dataset_conversion.base import (
    BadCaseError,
    Case,
    Conversion,
    Entry,
    Split,
    needed_folder,
    paired,
    unique_by_name,
)
from nnunet_ext.dataset_conversion.folds import Fold, patient_folds
from nnunet_ext.utilities.datasets import RELATIONS_KEY
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import save_json

OPTIONS = ("cross_validation",)
FOLDERS: dict[Split, str] = {"train": "Train_Folder", "val": "Val_Folder", "test": "Test_Folder"}
TABLES = ("*_text.xlsx", "*_text.csv")
TEST_PROMPTS_FILE = "promptsTs.json"
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
Picture = Literal["grey", "colour"]


def plan_lvit(
    source: Path,
    *,
    converter: str,
    foreground: str,
    channel_names: Mapping[str, str],
    about: dict[str, str],
    cross_validation: bool = False,
    patient: Callable[[str], str] = str,
) -> Conversion:
    """Images of Train_Folder and Val_Folder to train, those of Test_Folder, if it is there, to test.

    Args:
        source: the folder that holds Train_Folder.
        converter: its name.
        foreground: what masks show.
        channel_names: three for images in colour, one for grey ones.
        about: `reference` of the data set.
        cross_validation: folds over Train_Folder and Val_Folder together, instead of the one that these two are.
        patient: patient of a case name; each its own by default.

    Raises:
        UsageError: no image, no table of sentences, or a table that `match_prompts` refuses.
    """
    from nnunet_ext.data.prompt_tables import read_rows
    from nnunet_ext.data.prompts import PROMPTS_FILE, RELATION, match_prompts

    needed_folder(source / FOLDERS["train"], "Train_Folder/img, Train_Folder/labelcol and *_text.xlsx")
    cases = unique_by_name(
        [
            case
            for split, folder in FOLDERS.items()
            if (source / folder).is_dir()
            for case in _cases(source / folder, split, patient)
        ]
    )
    tables = _tables(source)
    rows = [row for table in tables for row in read_rows(table)]
    prompts = match_prompts(rows, [case.name for case in cases], ", ".join(map(str, tables)))
    if cross_validation:
        cases = tuple(replace(case, split="train") if case.split == "val" else case for case in cases)
    return Conversion(
        converter=converter,
        source=source,
        cases=cases,
        dataset_json={
            "channel_names": dict(channel_names),
            "labels": {"background": 0, foreground: 1},
            RELATIONS_KEY: {RELATION: PROMPTS_FILE},
        }
        | about,
        process=partial(process_picture, picture="colour" if len(channel_names) == 3 else "grey"),
        finish=partial(finish_lvit, sentences=prompts.sentences),
        options={"cross_validation": cross_validation},
        tables=tables,
        folds=patient_folds,
        summary=partial(_summary, sentences=prompts.sentences),
    )


def process_picture(case: Case, folder: Path, *, picture: Picture) -> Entry:
    """Check one image and its mask and write both as PNG; a test case may have no mask.

    Returns: shape (rows, columns in pixels), pixels per label, files.

    Raises:
        BadCaseError: unreadable, empty image, other size of the mask, or a mask that is not black and white.
    """
    from PIL import Image

    from nnunet_ext.dataset_conversion.covid_semiseg import binary_label
    from nnunet_ext.dataset_conversion.slices import FILE_ENDING, grey_values
    from nnunet_ext.dataset_conversion.xray import read_picture

    image = read_picture(case.image, "image")
    values: npt.NDArray[np.uint8] = grey_values(image)
    if picture == "colour":
        values = np.asarray(image.convert("RGB"))
    part = "Ts" if case.split == "test" else "Tr"
    outputs = {f"images{part}/{case.name}_0000{FILE_ENDING}": values}
    entry: Entry = {"shape": list(values.shape[:2])}
    if case.label is not None:
        mask = read_picture(case.label, "mask")
        if mask.size != image.size:
            raise BadCaseError(f"size mismatch: image {image.size}, mask {mask.size} (columns, rows)")
        label = binary_label(np.asarray(mask.convert("L")))
        outputs[f"labels{part}/{case.name}{FILE_ENDING}"] = label
        entry["label_voxels"] = {str(i): int(np.count_nonzero(label == i)) for i in (0, 1)}
    for file, array in outputs.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / file)
    return entry | {"files": list(outputs)}


def finish_lvit(
    folder: Path, conversion: Conversion, entries: dict[str, Entry], *, sentences: Mapping[str, str]
) -> None:
    """Write splits_final.json, dataset.json, prompts.json and, if there are test cases, promptsTs.json."""
    from nnunet_ext.data.prompts import PROMPTS_FILE
    from nnunet_ext.dataset_conversion.slices import FILE_ENDING

    names: dict[str, list[str]] = {split: [n for n, e in entries.items() if e["split"] == split] for split in FOLDERS}
    training = [*names["train"], *names["val"]]
    save_json(_folds(conversion, entries, names), folder / "splits_final.json")
    content: dict[str, Any] = {"numTraining": len(training), "file_ending": FILE_ENDING}
    save_json(conversion.dataset_json | content, folder / "dataset.json")
    save_json({name: sentences[name] for name in sorted(training) if name in sentences}, folder / PROMPTS_FILE)
    if names["test"]:
        content = {name: sentences[name] for name in names["test"] if name in sentences}
        save_json(content, folder / TEST_PROMPTS_FILE)


def _folds(conversion: Conversion, entries: dict[str, Entry], names: Mapping[str, list[str]]) -> list[Fold]:
    """One fold, LViT's, where there are cases to validate; else those of the conversion."""
    if names["train"] and names["val"]:
        return [{"train": sorted(names["train"]), "val": sorted(names["val"])}]
    assert conversion.folds is not None
    return conversion.folds({name: entries[name]["patient"] for name in (*names["train"], *names["val"])})


def _summary(entries: dict[str, Entry], *, sentences: Mapping[str, str]) -> list[str]:
    found = [sentences[name] for name in entries if name in sentences]
    missing = len(entries) - len(found)
    rest = f"; {missing} cases have none and get the default prompt" if missing else ""
    return [f"{len(found)} sentences, {len(set(found))} of them different{rest}"]


def _cases(folder: Path, split: Split, patient: Callable[[str], str]) -> list[Case]:
    images = _pictures(needed_folder(folder / "img", "images"))
    if not images:
        raise UsageError(f"{folder / 'img'} holds no image ({', '.join(SUFFIXES)}); check the download")
    if split == "test" and not (folder / "labelcol").is_dir():
        return [Case(name, patient(name), split, image) for name, image in images.items()]
    masks = _pictures(needed_folder(folder / "labelcol", "masks"))
    # QaTa-COV19 calls the mask of a.png mask_a.png; an image may itself be called so.
    masks = {name if name in images else name.removeprefix("mask_"): file for name, file in masks.items()}
    return paired(
        images,
        masks,
        split=split,
        patient=patient,
        no_label="no mask in labelcol",
        no_image="a mask, but no image in img",
    )


def _pictures(folder: Path) -> dict[str, Path]:
    pictures: dict[str, Path] = {}
    for file in sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith(".")):
        if file.stem in pictures:
            raise UsageError(f"{pictures[file.stem]} and {file} are one image; remove one")
        pictures[file.stem] = file
    return pictures


def _tables(source: Path) -> tuple[Path, ...]:
    """The tables of sentences, beside the folders or in them, one for all or one for each."""
    folders = [source, *(source / folder for folder in FOLDERS.values())]
    found = [table for folder in folders for pattern in TABLES for table in sorted(folder.glob(pattern))]
    tables = tuple(table for table in found if not table.name.startswith((".", "~")))
    if not tables:
        raise UsageError(
            f"{source} holds no sentences: expected Train_Val_text.xlsx, or Train_text.xlsx and so on, beside the"
            " folders or in them (columns Image and Description)"
        )
    return tables
