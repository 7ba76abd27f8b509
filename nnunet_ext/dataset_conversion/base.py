"""What a converter hands to the common machinery: cases, where they come from, and how one of them is converted.

A converter is a module with

- ``HELP: str``, one line; ``NAME: str``, the default name of the data set; ``OPTIONS: tuple[str, ...]``, the options of
  ``nnunet_ext convert`` beyond the common ones that it takes;
- ``plan(source: Path, **options) -> Conversion``, which looks at names and tables only and opens no image.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nnunet_ext.utilities.errors import UsageError

Split = Literal["train", "val", "test"]
Entry = dict[str, Any]


class BadCaseError(Exception):
    """One case cannot be converted; the message says why, in words for the user."""


@dataclass(frozen=True)
class Case:
    """One volume or slice with or without its label map, or one X-ray with its classes.

    `split` is what the source says; volumes know only train and test. A `problem` found while planning, such as a
    missing label file, makes this a bad case that is never opened.
    """

    name: str
    patient: str
    split: Split
    image: Path
    label: Path | None = None
    classes: tuple[int, ...] | None = None
    problem: str | None = None
    channels: tuple[Path, ...] = ()
    """Images of the other channels, where each channel is a file."""
    channel_labels: tuple[Path, ...] = ()
    """Label maps of the other channels, where each has its own."""

    @property
    def images(self) -> list[Path]:
        """The images of all channels, in the order of the channels."""
        return [self.image, *self.channels]

    @property
    def files(self) -> list[Path]:
        """The source files of the case, images first."""
        return [*self.images, *([] if self.label is None else [self.label]), *self.channel_labels]

    @property
    def has_truth(self) -> bool:
        """Whether the case comes with a label map or classes."""
        return self.label is not None or self.classes is not None


@dataclass(frozen=True)
class Conversion:
    """A planned conversion.

    `process(case, folder)` checks one case, writes its files below `folder` and returns what the manifest says about
    it; it runs in worker processes, so it is importable, and raises BadCaseError before it has written anything.
    `finish(folder, conversion, entries)` writes what describes the data set as a whole. `tables` are source files that
    concern all cases (lists, label tables).
    """

    converter: str
    source: Path
    cases: tuple[Case, ...]
    dataset_json: dict[str, Any]
    process: Callable[[Case, Path], Entry]
    finish: Callable[[Path, Conversion, dict[str, Entry]], None]
    options: dict[str, Any] = field(default_factory=dict)
    tables: tuple[Path, ...] = ()
    folds: Callable[[dict[str, str]], list[dict[str, list[str]]]] | None = None
    """With label maps only: training case -> patient, to the content of ``splits_final.json``."""
    name: str | None = None
    """Default name of the data set where source or options decide; else the converter's ``NAME``."""
    summary: Callable[[dict[str, Entry]], list[str]] | None = None
    """Lines to print about the converted cases."""

    def relative(self, path: Path) -> str:
        """How the manifest names a source file: its path below the source folder, or its own path outside of it."""
        return path.relative_to(self.source).as_posix() if path.is_relative_to(self.source) else path.as_posix()


def place(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`: a hard link where the file system allows it, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def needed_folder(folder: Path, what: str) -> Path:
    """`folder`; raises UsageError that says `what` was expected there when it does not exist."""
    if not folder.is_dir():
        raise UsageError(f"{folder} does not exist; expected {what} (layouts: docs/reference/datasets.md)")
    return folder


def case_name(path: Path) -> str:
    """File name without its ``.nii.gz`` or ``.nii``."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def nifti_files(folder: Path) -> list[Path]:
    """The visible ``.nii`` and ``.nii.gz`` files of one folder, sorted."""
    return sorted(f for f in folder.iterdir() if f.name.endswith((".nii.gz", ".nii")) and not f.name.startswith("."))


def paired(
    images: Mapping[str, Path],
    labels: Mapping[str, Path],
    *,
    split: Split = "train",
    patient: Callable[[str], str] = str,
    no_label: str,
    no_image: str,
) -> list[Case]:
    """One case for every name in `images` or `labels`.

    `patient` gives the patient of a case name (each its own by default). Where one of the two is missing the case is
    bad, for the reason `no_label` or `no_image`.
    """
    cases = []
    for name in sorted({*images, *labels}):
        image, label = images.get(name), labels.get(name)
        problem = no_image if image is None else no_label if label is None else None
        first, second = (image, label) if image is not None else (label, None)
        assert first is not None
        cases.append(Case(name, patient(name), split, first, second, problem=problem))
    return cases


def list_file(folder: Path, split: Split, suffix: str) -> Path:
    """The file of `folder` whose name speaks of `split` and of no other, such as ``train_label.csv``.

    ``validation`` counts as ``val``; ``train_val.csv`` speaks of two and is never taken.

    Raises:
        UsageError: none or several.
    """
    found = [f for f in sorted(needed_folder(folder, "lists").glob(f"*{suffix}")) if _splits_in_name(f) == {split}]
    if len(found) != 1:
        names = ", ".join(f.name for f in found) or "none"
        raise UsageError(f"{folder} must hold exactly one {split} list such as {split}{suffix}; found: {names}")
    return found[0]


def _splits_in_name(path: Path) -> set[str]:
    words = path.stem.lower().replace("-", "_").replace("validation", "val").split("_")
    return {"train", "val", "test"}.intersection(words)


def reference(title: str, url: str, licence: str) -> dict[str, str]:
    """The keys of dataset.json that say where data come from and under which terms."""
    return {"description": title, "reference": url, "licence": licence}


def unique_by_name(cases: Sequence[Case]) -> tuple[Case, ...]:
    """`cases`, sorted by name.

    Raises:
        UsageError: two share a name; both files are named.
    """
    by_name: dict[str, Case] = {}
    for case in cases:
        if case.name in by_name:
            raise UsageError(
                f"two cases are called {case.name}: {by_name[case.name].image} and {case.image}; remove one"
            )
        by_name[case.name] = case
    return tuple(by_name[name] for name in sorted(by_name))
