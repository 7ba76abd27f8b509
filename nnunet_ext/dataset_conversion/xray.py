"""X-ray collections with image-level classes: what is checked in an image and what is written."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal

from PIL import Image

from nnunet_ext.dataset_conversion.base import BadCaseError, Case, Conversion, Entry, place
from nnunet_ext.utilities.datasets import RELATIONS_KEY
from nnunet_ext.utilities.files import atomic_path, save_json

SUFFIXES = (".png", ".jpg", ".jpeg")
LABELS_FILE = "labels.csv"


def is_image(path: Path) -> bool:
    """Whether the name is that of a visible PNG or JPEG file."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_picture(path: Path, what: str) -> Image.Image:
    """A PNG or JPEG file, decoded completely; BadCaseError that says `what` if it is unreadable."""
    try:
        with Image.open(path) as file:
            picture: Image.Image = file
            picture.load()
        return picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadCaseError(f"unreadable {what} ({error})") from None


def process_xray(case: Case, folder: Path) -> Entry:
    """Decode one X-ray completely and link it into ``imagesTr``, unchanged.

    Returns: shape (height, width in pixels), PIL mode, classes (0/1 each), files.

    Raises:
        BadCaseError: missing, truncated or otherwise unreadable, or one grey value everywhere.
    """
    image = read_picture(case.image, "image")
    extrema = image.getextrema()
    if all(low == high for low, high in (extrema if isinstance(extrema[0], tuple) else (extrema,))):
        raise BadCaseError("image is empty: every pixel has the same value")
    place(case.image, folder / "imagesTr" / case.name)
    classes = list(case.classes or ())
    return {
        "shape": [image.height, image.width],
        "mode": image.mode,
        "classes": classes,
        "files": [f"imagesTr/{case.name}"],
    }


def finish_xray(folder: Path, conversion: Conversion, entries: dict[str, Entry]) -> None:
    """Write ``labels.csv`` (image, patient, split, one 0/1 column per class) and ``dataset.json``."""
    classes = conversion.dataset_json[RELATIONS_KEY]["classification"]["classes"]
    with atomic_path(folder / LABELS_FILE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "patient", "split", *classes])
        for entry in entries.values():
            writer.writerow([*entry["files"], entry["patient"], entry["split"], *entry["classes"]])
    content = {
        "channel_names": {"0": "X-ray"},
        "file_ending": ".png",
        "numTraining": len(entries),
        "labels": {"background": 0},
    }
    save_json(conversion.dataset_json | content, folder / "dataset.json")


def classification(task: Literal["multiclass", "multilabel"], classes: tuple[str, ...]) -> dict[str, object]:
    """The block of dataset.json that says what ``labels.csv`` holds."""
    return {RELATIONS_KEY: {"classification": {"task": task, "classes": list(classes), "labels_file": LABELS_FILE}}}


def one_hot(index: int, length: int) -> tuple[int, ...]:
    """``one_hot(1, 3)`` is ``(0, 1, 0)``."""
    return tuple(int(i == index) for i in range(length))
