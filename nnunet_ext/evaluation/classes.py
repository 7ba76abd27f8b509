"""What the values of a segmentation mean: labels and regions, from ``dataset.json`` or from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json


@dataclass(frozen=True)
class Classes:
    """What the values of a segmentation mean, as nnU-Net's ``dataset.json`` says it.

    Attributes:
        values: name of a foreground class -> its label value, or the values that make it a region.
        known: every value that a segmentation may hold, background included.
        ignore: the value of voxels that are to count nowhere, or None.
        file_ending: of the segmentation files, with the dot.
    """

    values: dict[str, int | tuple[int, ...]]
    known: frozenset[int]
    ignore: int | None
    file_ending: str

    @classmethod
    def from_dataset_json(cls, path: Path) -> Classes:
        """Foreground labels, or regions where the data set has them.

        Raises:
            UsageError: absent, not JSON, or without labels and file ending.
        """
        content: dict[str, Any] = load_json(path)
        for key in ("labels", "file_ending"):
            if key not in content:
                raise UsageError(f"{path} has no {key!r}; it must be a dataset.json of nnU-Net v2")
        labels = dict(content["labels"])
        ignore = labels.pop("ignore", None)
        try:
            named = {name: _label_or_region(value) for name, value in labels.items()}
            ignore = None if ignore is None else int(ignore)
        except (TypeError, ValueError):
            raise UsageError(
                f'{path}: "labels" must be name: value or name: [values] with integers, as nnU-Net v2 has it; got'
                f" {content['labels']}"
            ) from None
        foreground = {name: value for name, value in named.items() if set(_as_tuple(value)) != {0}}
        if not foreground:
            raise UsageError(f"{path} has no label but background")
        known = {0, *(value for group in foreground.values() for value in _as_tuple(group))}
        known |= set() if ignore is None else {ignore}
        return cls(foreground, frozenset(known), ignore, content["file_ending"])

    @classmethod
    def from_arguments(cls, labels: Sequence[str], regions: Sequence[str], file_ending: str) -> Classes:
        """Classes of a data set without ``dataset.json``: `labels` are values, named by their number; see `chosen`."""
        values: dict[str, int | tuple[int, ...]] = {text: _number(text, "--labels") for text in labels}
        values = _with_regions(values, regions)
        known = {0, *(value for group in values.values() for value in _as_tuple(group))}
        return cls(values, frozenset(known), None, file_ending)

    def chosen(self, labels: Sequence[str], regions: Sequence[str]) -> Classes:
        """These classes only: `labels` by name or value, `regions` as ``name=1,2,3``; all classes if both are empty.

        Raises:
            UsageError: a label or a value that the data set does not have, or a region in another form.
        """
        if not labels and not regions:
            return self
        by_text = {str(value): name for name, value in self.values.items()} | {name: name for name in self.values}
        if unknown := [label for label in labels if label not in by_text]:
            raise UsageError(f"--labels {' '.join(unknown)}: dataset.json has {', '.join(self.values)}")
        values = {by_text[label]: self.values[by_text[label]] for label in labels}
        values = _with_regions(values, regions)
        for name, members in values.items():
            if unlisted := sorted(set(_as_tuple(members)) - self.known):
                raise UsageError(f"--regions {name}: dataset.json has no value {', '.join(map(str, unlisted))}")
            if self.ignore in _as_tuple(members):
                raise UsageError(f"--regions {name}: {self.ignore} is the ignore label, whose voxels count nowhere")
        return replace(self, values=values)


def _label_or_region(value: Any) -> int | tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, list | tuple) else int(value)


def _as_tuple(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _number(text: str, flag: str) -> int:
    if not _is_label(text):
        raise UsageError(f"{flag} {text}: without a dataset.json (--dataset-json) this must be a value above 0")
    return int(text)


def _with_regions(labels: dict[str, int | tuple[int, ...]], regions: Sequence[str]) -> dict[str, int | tuple[int, ...]]:
    """`labels` and regions, each name once."""
    values = dict(labels)
    for name, members in map(_region, regions):
        if name in values:
            raise UsageError(f"--regions {name}: there is a label or region of that name already; choose another")
        values[name] = members
    return values


def _region(text: str) -> tuple[str, tuple[int, ...]]:
    """``core=2,3`` -> ``("core", (2, 3))``."""
    name, _, values = text.partition("=")
    members = values.split(",")
    if not name or not all(_is_label(member) for member in members):
        raise UsageError(f"--regions {text} must look like core=2,3: a name and label values above 0")
    return name, tuple(int(member) for member in members)


def _is_label(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text) > 0
