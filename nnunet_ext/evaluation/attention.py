"""Mean attention per case and modality, as ``nnunet_ext explain attention`` leaves it in ``attention.csv``."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path

FOLDER_NAME, CSV_NAME = "attention", "attention.csv"
COLUMNS = ("case", "modality", "mean", "mean_foreground")
PLACES = {"image": "over the image", "foreground": "over the predicted foreground"}
"""Field of `AttentionMean` -> what is averaged over, in words."""
MAX_PRINTED = 20
"""Cases of the table for a terminal."""


@dataclass(frozen=True)
class AttentionMean:
    """Means of A_i in (0, 1): over what the network saw of the image (nnU-Net's crop), and over the predicted
    foreground, all classes of it; nan where nothing is predicted."""

    case: str
    modality: str
    image: float
    foreground: float

    def over(self, place: str) -> float:
        """That of a key of `PLACES`."""
        return self.foreground if place == "foreground" else self.image


@dataclass(frozen=True)
class AttentionTable:
    """`means`: one for each modality that a case has, cases together, modalities in the model's order."""

    means: Sequence[AttentionMean]

    @cached_property
    def cases(self) -> dict[str, dict[str, AttentionMean]]:
        """Case -> modality -> means."""
        found: dict[str, dict[str, AttentionMean]] = {}
        for mean in self.means:
            found.setdefault(mean.case, {})[mean.modality] = mean
        return found

    @property
    def modalities(self) -> list[str]:
        """In the order of the cases that have the most of them."""
        fullest_first = sorted(self.cases.values(), key=len, reverse=True)
        return list(dict.fromkeys(name for modalities in fullest_first for name in modalities))

    def cell(self, case: str, modality: str, place: str) -> str:
        """With 3 decimals; "–" where the case lacks the modality, or nothing is predicted."""
        mean = self.cases[case].get(modality)
        return _spelled(mean.over(place) if mean else math.nan)

    def mean_cell(self, modality: str, place: str) -> str:
        """Mean over the cases that have a value."""
        values = [mean.over(place) for mean in self.means if mean.modality == modality]
        defined = [value for value in values if not math.isnan(value)]
        return _spelled(sum(defined) / len(defined) if defined else math.nan)

    def text(self) -> str:
        """Cases x modalities for each of `PLACES`, for a terminal; of many cases the first `MAX_PRINTED`."""
        blocks = ["\n".join([f"mean A_i {words}", *self._lines(place)]) for place, words in PLACES.items()]
        if (more := len(self.cases) - MAX_PRINTED) > 0:
            blocks.append(f"and {more} more cases, which count in the means: {CSV_NAME} has all")
        return "\n\n".join(blocks)

    def _lines(self, place: str) -> list[str]:
        names = self.modalities
        rows = [["case", *names]]
        rows += [[case, *(self.cell(case, name, place) for name in names)] for case in list(self.cases)[:MAX_PRINTED]]
        rows.append(["mean", *(self.mean_cell(name, place) for name in names)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return [
            "  ".join([row[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]

    def save(self, folder: Path) -> Path:
        """Write ``attention.csv``, unrounded."""
        path = folder / CSV_NAME
        with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for mean in self.means:
                foreground = "" if math.isnan(mean.foreground) else mean.foreground
                writer.writerow([mean.case, mean.modality, mean.image, foreground])
        return path

    @classmethod
    def load(cls, folder: Path) -> AttentionTable:
        """Read what `save` wrote.

        Raises:
            UsageError: it is not such a file.
        """
        path = folder / CSV_NAME
        try:
            with path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                rows = list(reader)
            if list(reader.fieldnames or ()) != list(COLUMNS):
                raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
            return cls(
                [
                    AttentionMean(
                        row["case"], row["modality"], float(row["mean"]), float(row["mean_foreground"] or "nan")
                    )
                    for row in rows
                ]
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{path} is no table of attention ({error}); run nnunet_ext explain attention again"
            ) from None


def find_attention(folder: Path) -> Path | None:
    """The folder of maps in a reported one: itself, or its ``attention``; None if neither has ``attention.csv``."""
    return next((found for found in (folder, folder / FOLDER_NAME) if (found / CSV_NAME).is_file()), None)


def _spelled(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
