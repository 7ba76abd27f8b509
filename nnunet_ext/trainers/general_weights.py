"""Start encoders from the encoder of an ordinary nnU-Net run."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_ext.utilities.errors import UsageError

ENCODER, ALIAS = "encoder.", "decoder.encoder."
UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError)


@dataclass(frozen=True)
class LoadedWeights:
    """Names that were loaded, names in the file that served none, names in the encoder that got nothing."""

    loaded: list[str]
    skipped: list[str]
    left: list[str]

    def __str__(self) -> str:
        return (
            f"{len(self.loaded)} weights loaded; skipped in the file: {', '.join(self.skipped) or 'none'};"
            f" left at their random start: {', '.join(self.left) or 'none'}"
        )


def load_encoder(encoder: nn.Module, path: str) -> LoadedWeights:
    """Copy ``encoder.*`` of the nnU-Net checkpoint `path` into `encoder`, by name, where the shapes agree.

    The file is read without running code: tensors, plain values and NumPy's numbers only.

    Raises:
        UsageError: the file cannot be read, or holds nothing that fits.
    """
    weights = read_network_weights(path)
    own = encoder.state_dict()
    fitting = {
        name: weights[ENCODER + name]
        for name, value in own.items()
        if ENCODER + name in weights and weights[ENCODER + name].shape == value.shape
    }
    if not fitting:
        raise UsageError(
            f"general_weights={path!r} has no weight that fits the encoder; train the checkpoint with the target's"
            " network (nnunet_ext link copies the target's plans to the non-target data)"
        )
    encoder.load_state_dict(fitting, strict=False)
    # nnU-Net's own checkpoints name the encoder's weights a second time, as part of the decoder.
    skipped = [name for name in weights if not name.startswith(ALIAS) and name.removeprefix(ENCODER) not in fitting]
    return LoadedWeights(list(fitting), skipped, [name for name in own if name not in fitting])


def read_network_weights(path: str) -> dict[str, Tensor]:
    """The ``network_weights`` of a checkpoint of nnU-Net, on the CPU.

    Raises:
        UsageError: absent, damaged, no such checkpoint, or one that needs more than plain values.
    """
    if not Path(path).is_file():
        raise UsageError(f"general_weights={path!r} is not a file; give the checkpoint_final.pth of an nnU-Net run")
    try:
        with torch.serialization.safe_globals(_numbers_of_numpy()):
            weights = torch.load(path, map_location="cpu", weights_only=True)["network_weights"]
    except (*UNREADABLE, TypeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(
            f"general_weights={path!r} is not a checkpoint of nnU-Net that can be read: {reason}"
        ) from None
    return {str(name): value for name, value in weights.items() if isinstance(value, Tensor)}


def _numbers_of_numpy() -> list[Any]:
    """What the numbers in nnU-Net's log are pickled with, under the names of NumPy 1 and 2."""
    scalar = np.float64(0).__reduce__()[0]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*names, np.dtype, *{type(np.dtype(code)) for code in "?" + np.typecodes["AllInteger"] + "efdg"}]
