"""Start parts of TMC from public weights: timm's Swin Transformers and BERTs in the format of transformers.

Only tensors by name come in here; whoever reads the file does so without running code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_ext.architectures.tmc_swin import SwinStages
from nnunet_ext.architectures.tmc_text import TextStages

# The authors' first files call the weights of a norm gamma and beta.
BERT_NAMES = {
    r"^bert\.": "",
    r"^encoder\.layer\.": "layers.",
    r"LayerNorm\.gamma$": "LayerNorm.weight",
    r"LayerNorm\.beta$": "LayerNorm.bias",
}


@dataclass
class LoadedWeights:
    """What became of each weight: names in the network, and names in the file that served none of them."""

    loaded: list[str] = field(default_factory=list)
    """Copied as they are, or `adapted`."""
    adapted: list[str] = field(default_factory=list)
    """Made to fit: other input channels, another window, fewer positions."""
    skipped: list[str] = field(default_factory=list)
    """Names in the file."""
    left: list[str] = field(default_factory=list)
    """At their random start."""

    def __str__(self) -> str:
        return (
            f"{len(self.loaded)} weights loaded; adapted: {', '.join(self.adapted) or 'none'}; skipped in the file:"
            f" {', '.join(self.skipped) or 'none'}; left at their random start: {', '.join(self.left) or 'none'}"
        )


def load_swin_weights(swin: SwinStages, weights: Mapping[str, Any]) -> LoadedWeights:
    """Copy a Swin Transformer of timm, old or new, or of its authors into `swin`; see `load_local_weights`.

    weights: the content of the file, tensors by name, or that under the key ``model`` or ``state_dict``.
    """
    weights = unwrapped(weights)
    # Before, the patches were merged at the end of a stage, now they are at the start of the next one.
    old = any(name.startswith("layers.0.downsample.") for name in weights)
    if old:
        weights = {re.sub(r"^layers\.(\d)\.downsample\.", _in_the_next_layer, n): w for n, w in weights.items()}
    return load_local_weights(swin, weights)


def load_bert_weights(text: TextStages, weights: Mapping[str, Any]) -> LoadedWeights:
    """Copy a BERT of transformers, with or without a head or pooler, into `text`; see `load_local_weights`.

    weights: the content of ``model.safetensors`` or ``pytorch_model.bin``, tensors by name.
    """
    renamed = {}
    for name, tensor in unwrapped(weights).items():
        for theirs, ours in BERT_NAMES.items():
            name = re.sub(theirs, ours, name)
        renamed[name] = tensor
    return load_local_weights(text, renamed)


def load_local_weights(module: nn.Module, weights: Mapping[str, Tensor], *, prefix: str = "") -> LoadedWeights:
    """Copy the tensors of `weights` whose name is `prefix` and that of a weight of `module`.

    Three kinds of tables are adapted where their shape differs: the patch embedding to other input channels, tables of
    relative positions to another window, and embeddings of positions and sentences to fewer rows.

    Raises:
        ValueError: nothing fits; `module` is then unchanged.
    """
    report, fitting = LoadedWeights(), {}
    for name, own in module.state_dict().items():
        found = weights.get(prefix + name)
        if found is not None and found.shape != own.shape:
            found = _adapted(name, found, own)
            if found is not None:
                report.adapted.append(name)
        if found is None:
            report.left.append(name)
        else:
            fitting[name] = found
    report.loaded = list(fitting)
    used = {prefix + name for name in fitting}
    report.skipped = [name for name in weights if name not in used]
    if not fitting:
        raise ValueError(
            f"none of the {len(weights)} weights fits {type(module).__name__}; there are, e.g.,"
            f" {', '.join(list(weights)[:3])}, and needed are, e.g., {', '.join(report.left[:3])}"
        )
    module.load_state_dict(fitting, strict=False)
    return report


def unwrapped(weights: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors by name, out of the container that some files have."""
    for key in ("model", "state_dict"):
        if isinstance(weights.get(key), Mapping):
            weights = weights[key]
    return {name: tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)}


def _adapted(name: str, found: Tensor, own: Tensor) -> Tensor | None:
    """`found` in the shape of `own`; None if there is no way."""
    for ending, adapt in ADAPTATIONS.items():
        if name.endswith(ending):
            return adapt(found.float(), own)
    return None


def _other_channels(found: Tensor, own: Tensor) -> Tensor | None:
    """Every channel gets the same share of the sum over channels, so that a grey image is seen as before."""
    if found.shape[0] != own.shape[0] or found.shape[2:] != own.shape[2:]:
        return None
    return found.sum(1, keepdim=True).expand_as(own) / own.shape[1]


def _other_window(found: Tensor, own: Tensor) -> Tensor | None:
    """((2w - 1)^2, heads), interpolated on its square."""
    edges = [math.isqrt(len(table)) for table in (found, own)]
    if found.shape[1] != own.shape[1] or edges[0] ** 2 != len(found):
        return None
    square = found.T.reshape(1, -1, edges[0], edges[0])
    return F.interpolate(square, (edges[1], edges[1]), mode="bicubic", align_corners=True)[0].flatten(1).T


def _first_rows(found: Tensor, own: Tensor) -> Tensor | None:
    if found.shape[1] != own.shape[1] or len(found) < len(own):
        return None
    return found[: len(own)]


ADAPTATIONS: dict[str, Callable[[Tensor, Tensor], Tensor | None]] = {
    "patch_embed.proj.weight": _other_channels,
    "relative_position_bias_table": _other_window,
    "position_embeddings.weight": _first_rows,
    "token_type_embeddings.weight": _first_rows,
}


def _in_the_next_layer(match: re.Match[str]) -> str:
    return f"layers.{int(match[1]) + 1}.downsample."
