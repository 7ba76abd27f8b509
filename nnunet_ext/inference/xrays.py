"""Which X-rays to classify, and what is known of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.utilities.errors import UsageError

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Xrays:
    """N images to classify: their names as given, their files, and what is known of them."""

    names: list[str]
    files: list[Path]
    labels: NDArray[np.float64] | None
    """(N, C): 1, 0, or nan where unknown; None: no labels were given"""


def list_xrays(source: Path, labels: Path | None, split: str | None, classes: Sequence[str]) -> Xrays:
    """What to classify: the images below a folder, sorted, or the rows of a table in the format of ``labels.csv``.

    Args:
        source: folder, or table whose images are relative to the table's folder.
        labels: a table that knows (some of) the images of a folder.
        split: only the images that the table assigns to this split.
        classes: columns of the table that are the model's classes.

    Raises:
        UsageError: no image, an absent file or column, or a label that is not 0, 1 or empty; names all of them.
    """
    if source.is_file() and labels is not None:
        raise UsageError(f"-i {source} is a table already; --labels {labels} is for a folder of images")
    table = source if source.is_file() else labels
    if split is not None and table is None:
        raise UsageError(f"--split {split} needs a table: -i LABELS_CSV or --labels LABELS_CSV")
    rows = _read_table(table, classes) if table is not None else {}
    if source.is_dir():
        files = sorted(file for file in source.rglob("*") if file.suffix.lower() in IMAGE_ENDINGS)
        names = [str(file.relative_to(source)) for file in files]
    elif source.is_file():
        files, names = [row.file for row in rows.values()], [row.name for row in rows.values()]
    else:
        raise UsageError(f"-i {source} is neither a folder nor a table of labels")
    unknown = _Row("", Path(), "", [math.nan] * len(classes))
    known = [rows.get(file.resolve(), unknown) for file in files]
    kept = [i for i, row in enumerate(known) if split is None or row.split == split]
    if not kept:
        raise UsageError(f"-i {source} holds no image" + (f" of split {split}" if split else ""))
    absent = [str(files[i]) for i in kept if not files[i].is_file()]
    if absent:
        raise UsageError(f"{len(absent)} images do not exist:\n" + "\n".join(absent))
    values = np.array([known[i].labels for i in kept], dtype=np.float64)
    return Xrays([names[i] for i in kept], [files[i] for i in kept], values if table is not None else None)


@dataclass(frozen=True)
class _Row:
    name: str
    file: Path
    split: str
    labels: list[float]


def _read_table(table: Path, classes: Sequence[str]) -> dict[Path, _Row]:
    """Resolved image path -> row."""
    if not table.is_file():
        raise UsageError(f"table of labels {table} does not exist")
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in ("image", "split", *classes) if name not in (reader.fieldnames or ())]
        if missing:
            raise UsageError(
                f"{table} lacks the columns {', '.join(missing)}; the model's classes: {', '.join(classes)}"
            )
        rows = {}
        for content in reader:
            labels = [_label(table, reader.line_num, name, content[name] or "") for name in classes]
            path = table.parent / content["image"]
            rows[path.resolve()] = _Row(content["image"], path, content["split"], labels)
    return rows


def _label(table: Path, line: int, column: str, text: str) -> float:
    if text.strip() not in ("0", "1", ""):
        raise UsageError(f"{table}, row {line}: {column}={text!r} is not 0, 1 or empty (unknown)")
    return float(text) if text.strip() else math.nan
