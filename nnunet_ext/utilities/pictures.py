"""Pictures that a run leaves for its report: ``fold_X/pictures`` with the files and a ``pictures.json`` about them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json, save_json

FOLDER_NAME, LIST_NAME = "pictures", "pictures.json"
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".svg": "image/svg+xml"}
MAX_BYTES = 2_000_000
"""Largest file that is embedded; a page with larger ones is slow on a phone."""


@dataclass(frozen=True)
class Picture:
    """A picture file beside ``pictures.json``, and what is said about it.

    Attributes:
        file: name of a PNG, JPEG or SVG file, relative to the folder.
        title: heading.
        caption: what to see in it; may be empty.
        alt: the picture in words, for readers who do not see it.
    """

    file: str
    title: str
    caption: str
    alt: str


def write_pictures(folder: Path, pictures: Sequence[Picture]) -> None:
    """Write ``pictures.json``, atomically; the files themselves are there already.

    Raises:
        UsageError: a file is absent, outside of `folder`, too large or of another type.
    """
    for picture in pictures:
        find_picture(folder, picture)
    save_json([asdict(picture) for picture in pictures], folder / LIST_NAME)


def read_pictures(folder: Path) -> list[Picture]:
    """The list in ``pictures.json``; empty without that file. Whether the files are there is not looked at.

    Raises:
        UsageError: not a list of entries with file, title, caption and alt, all of them text.
    """
    path, keys = folder / LIST_NAME, [field.name for field in fields(Picture)]
    if not path.is_file():
        return []
    content = load_json(path)
    for entry in content if isinstance(content, list) else [content]:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in keys):
            raise UsageError(f"{path} must be a list of entries with the texts {', '.join(keys)}")
    return [Picture(**{key: entry[key] for key in keys}) for entry in content]


def find_picture(folder: Path, picture: Picture) -> Path:
    """The picture's file.

    Raises:
        UsageError: absent, outside of `folder` (also by a link), larger than `MAX_BYTES`, or neither PNG, JPEG nor SVG.
    """
    path = (folder / picture.file).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UsageError(f"picture {picture.file} lies outside of {folder}")
    if path.suffix.lower() not in TYPES:
        raise UsageError(f"picture {picture.file} is neither PNG, JPEG nor SVG")
    if not path.is_file():
        raise UsageError(f"picture {picture.file} does not exist in {folder}")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UsageError(f"picture {picture.file} has {size / 1e6:.1f} MB; at most {MAX_BYTES / 1e6:g} MB are embedded")
    return path


def picture_uri(folder: Path, picture: Picture) -> str:
    """The picture as data URI.

    Raises:
        UsageError: as `find_picture`.
    """
    path = find_picture(folder, picture)
    return data_uri(path.read_bytes(), TYPES[path.suffix.lower()])


def data_uri(content: bytes, media_type: str) -> str:
    """``data:image/png;base64,...``."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
