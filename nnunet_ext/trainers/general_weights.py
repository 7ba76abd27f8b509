"""Start encoders from the encoder of an ordinary nnU-Net run."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from nnunet_ext.utilities.checkpoint import load_checkpoint
from nnunet_ext.utilities.errors import UsageError

ENCODER, ALIAS = "encoder.", "decoder.encoder."
WAY_OUT = "give the checkpoint_final.pth of an nnU-Net run"


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
    try:
        weights = load_checkpoint(path, way_out=WAY_OUT).get("network_weights")
    except UsageError as error:
        raise UsageError(f"general_weights={path!r}: {error}") from None
    if not isinstance(weights, dict):
        raise UsageError(f"general_weights={path!r} has no network_weights; {WAY_OUT}")
    return {str(name): value for name, value in weights.items() if isinstance(value, Tensor)}
