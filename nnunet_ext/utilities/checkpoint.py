"""Reading checkpoints without running what is in them."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_ext.utilities.errors import UsageError

UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError)
UNRESOLVED = (ImportError, AttributeError)  # a trusted pickle may name classes that are gone


TRUST = "if you trust the source of this file, repeat with --trust-checkpoint"


def load_checkpoint(
    path: str | os.PathLike[str], *, trust: bool = False, map_location: Any = "cpu", way_out: str = TRUST
) -> dict[str, Any]:
    """The dictionary that `torch.save` wrote to `path`: a checkpoint of nnU-Net v2, stock or ours.

    Tensors, plain Python values, and NumPy's numbers and arrays of numbers are read; nothing else is ever built, so a
    file from elsewhere cannot run code. With `trust` the file is unpickled without that restriction. `way_out` is what
    the message about a file that needs more advises.

    Raises:
        UsageError: the file is absent, damaged or no dictionary, or needs a global outside the allow-list; the
            message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"checkpoint {path} does not exist")
    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            checkpoint = torch.load(path, map_location=map_location, weights_only=not trust)
    except (*UNREADABLE, *UNRESOLVED) as error:
        raise UsageError(_refusal(path, error, trust, way_out)) from None
    if not isinstance(checkpoint, dict):
        raise UsageError(f"checkpoint {path} holds a {type(checkpoint).__name__}, not a dictionary as nnU-Net writes")
    return checkpoint


def _allowed_globals() -> list[Any]:
    """What the NumPy numbers in nnU-Net's log are pickled with, under the names of NumPy 1 and of NumPy 2."""
    scalar = np.float64(0).__reduce__()[0]
    reconstruct = np.zeros(1).__reduce__()[0]
    functions = [
        (function, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for function, name in ((scalar, "scalar"), (reconstruct, "_reconstruct"))
    ]
    # A dtype is an instance of a class of its own; without the class of `object`, arrays of objects stay out.
    dtypes = {type(np.dtype(code)) for code in "?" + np.typecodes["AllInteger"] + np.typecodes["AllFloat"]}
    return [*functions, np.ndarray, np.dtype, *dtypes]


def _refusal(path: Path, error: Exception, trust: bool, way_out: str) -> str:
    """One line: what the file wanted and the way out, or that it is damaged and how that shows."""
    wanted = re.search(r"(?:GLOBAL|function|but got) (<[^>]+>|\S+)", str(error))
    if wanted and not trust:
        return f"checkpoint {path} needs {wanted[1]}, which is not a plain value and could run code; {way_out}"
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"checkpoint {path} cannot be read, it is truncated or no checkpoint ({reason[:200]}); copy it again"
