"""What a run of `RDCLTrainer` leaves of its feature relations: matrices in ``relations.npz``, series in
``progress.csv``."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path

FILE_NAME = "relations.npz"
NON_TARGET, GENERAL, TARGET = "general_non_target", "general_target", "target"
TITLES = {NON_TARGET: "R_G(non-target)", GENERAL: "R_G(target)", TARGET: "R_T(target)"}

DISTANCES = {"relation/general": (NON_TARGET, GENERAL), "relation/target": (GENERAL, TARGET)}
"""Series of a mean distance -> the two matrices that are apart by it (Eq. 4, Eq. 5)."""
DISTANCE_TITLES = {key: f"d({TITLES[first]}, {TITLES[second]})" for key, (first, second) in DISTANCES.items()}
RANK_SERIES, WEIGHT_SERIES = "relation/general_rank", "relation/weight"

UNREADABLE = (OSError, EOFError, ValueError, TypeError, AttributeError, KeyError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises on a file that is none of its own, one array alone (no `with`), pickled, cut off or altered."""

Matrices = Mapping[str, NDArray[Any]]
"""Name as in `TITLES` -> (C, C); `GENERAL` and `TARGET` at least."""


def differences(matrices: Matrices) -> dict[str, NDArray[np.float32]]:
    """Title -> |A - B|, (C, C), for every pair of `DISTANCES` that is there."""
    pairs = [(first, second) for first, second in DISTANCES.values() if first in matrices]
    return {
        f"|{TITLES[first]} - {TITLES[second]}|": np.abs(np.float32(matrices[first]) - np.float32(matrices[second]))
        for first, second in pairs
    }


def write_relations(path: Path, kept: Mapping[int, Matrices]) -> None:
    """Write matrices by epoch, atomically; with no epoch at all, delete the file.

    The file holds ``epochs`` (E,), ascending, and for each name a stack (E, C, C), fp16. All epochs have the
    same names.
    """
    if not kept:
        path.unlink(missing_ok=True)
        return
    epochs = sorted(kept)
    stacks: dict[str, Any] = {
        name: np.stack([kept[epoch][name] for epoch in epochs]).astype(np.float16) for name in kept[epochs[0]]
    }
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, epochs=np.array(epochs, np.int64), **stacks)


def read_relations(path: Path) -> dict[int, dict[str, NDArray[np.float16]]]:
    """Matrices by epoch, epochs ascending; empty without the file. Never runs code from the file.

    Raises:
        UsageError: it is damaged or of another kind.
    """
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            epochs = [int(epoch) for epoch in file["epochs"]]
            stacks = {name: np.asarray(file[name], np.float16) for name in TITLES if name in file}
    except UNREADABLE as error:
        raise _unusable(path, str(error)) from None
    shapes = {stack.shape for stack in stacks.values()}
    square = len(shapes) == 1 and all(len(s) == 3 and s[0] == len(epochs) and s[1] == s[2] for s in shapes)
    if not square or not {GENERAL, TARGET} <= stacks.keys() or epochs != sorted(set(epochs)):
        raise _unusable(path, f"epochs {epochs} with {', '.join(f'{n} {s.shape}' for n, s in stacks.items())}")
    return {epoch: {name: stack[i] for name, stack in stacks.items()} for i, epoch in enumerate(epochs)}


def _unusable(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"{path} is no file of relation matrices ({reason}); delete it: training keeps those of later epochs anew"
    )
