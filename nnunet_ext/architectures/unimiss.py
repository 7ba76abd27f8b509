"""Start `UCINet` from UniMiSS+ weights (Xie et al.), the "extension of [20]" that UCI's authors start from.

UniMiSS+ is the same encoder and decoder without cross-modal interaction, pre-trained without labels on X-rays of
96 x 96 and volumes of 16 x 96 x 96. Its file holds the weights under the key ``student``, each name with the prefix
``module.backbone.``.

What is not verified: the public file was not at hand. `PARTS` names what descriptions of the model give away, so it
covers the Transformer stages, the patch embeddings and the position embeddings of the encoder; stem and decoder need
entries of their own in `parts`. Loading refuses a file that fills too little of the network, and the report names what
was left, so that a name spelled otherwise cannot pass for a pre-trained start.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_ext.architectures.uci import UCINet
from nnunet_ext.architectures.uci_topology import NUM_STAGES, NUM_STEM_LEVELS, Topology

CONTAINER_KEY, PREFIX = "student", "module.backbone."
SMALLEST_SHARE = 0.5
PRETRAINING_GRIDS = {
    "ct": Topology.paper().sizes((16, 96, 96))[NUM_STEM_LEVELS:],
    "xray": Topology.xray((96, 96)).sizes((96, 96))[NUM_STEM_LEVELS:],
}

# Part of `UCINet` -> part of UniMiSS+; {i} is a stage from 0, {n} the same from 1.
PARTS = {
    "encoder.stages.shared.{i}.": "block{n}.",
    "encoder.branches.ct.patch_embeddings.{i}.": "patch_embed3D{n}.",
    "encoder.branches.xray.patch_embeddings.{i}.": "patch_embed2D{n}.",
    "encoder.branches.ct.position_embeddings.{i}.tokens": "pos_embed3D{n}",
    "encoder.branches.xray.position_embeddings.{i}.tokens": "pos_embed2D{n}",
    "encoder.branches.xray.class_token": "cls_token",
}
# Layer inside a part -> its name there. Parts with other inner names are matched in order of definition.
LAYERS = {
    "attention.query.": "attn.q.",
    "attention.key_value.": "attn.kv.",
    "attention.projection.": "attn.proj.",
    "attention.reduction.convs.ct.": "attn.sr3D.",
    "attention.reduction.convs.xray.": "attn.sr2D.",
    "attention.reduction.norm.": "attn.norm.",
    "mlp.0.": "mlp.fc1.",
    "mlp.2.": "mlp.fc2.",
}


@dataclass
class LoadReport:
    """What became of each parameter: names in the network, and names in the file that served none of them."""

    matched: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    share: float = 0.0
    """Values that were loaded over all values of the network's parameters, 0 to 1."""


def load_unimiss_plus(
    net: UCINet,
    weights: str | os.PathLike[str] | Mapping[str, Any],
    *,
    parts: Mapping[str, str] | None = None,
    smallest_share: float = SMALLEST_SHARE,
) -> LoadReport:
    """Copy UniMiSS+ weights into `net` by name; position embeddings are resized on their grid of voxels or pixels.

    weights: the path of a file of tensors, or a loaded state dictionary. parts: more entries like those of `PARTS`.

    Raises:
        ValueError: less than `smallest_share` of the network's values would be loaded; `net` is then unchanged.
    """
    source = unwrapped(weights)
    names = source_names(net, list(source), {**PARTS, **(parts or {})})
    parameters = dict(net.named_parameters())
    report, loaded = LoadReport(), {}
    for name, parameter in parameters.items():
        tensor = source.get(names.get(name, ""))
        if tensor is not None and tensor.shape == parameter.shape:
            loaded[name] = tensor
            report.matched.append(name)
        elif tensor is not None and name.endswith(".tokens") and tensor.shape[-1] == parameter.shape[-1]:
            loaded[name] = resized_embedding(net, name, tensor)
            report.resized.append(name)
        else:
            report.skipped.append(name)
    report.unused = sorted(set(source) - {names[name] for name in loaded})
    report.share = sum(t.numel() for t in loaded.values()) / sum(p.numel() for p in parameters.values())
    if report.share < smallest_share:
        raise ValueError(
            f"the UniMiSS+ weights fill {report.share:.0%} of the network, less than {smallest_share:.0%}; no parameter"
            f" was found for, e.g., {', '.join(report.skipped[:3])}; unused in the file: {', '.join(report.unused[:3])}"
        )
    with torch.no_grad():
        for name, tensor in loaded.items():
            parameters[name].copy_(tensor)
    return report


def unwrapped(weights: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors by name, without the container and the prefix of the published file."""
    content: Any = weights
    if isinstance(weights, str | os.PathLike):
        content = torch.load(weights, map_location="cpu", weights_only=True)
    content = content.get(CONTAINER_KEY, content)
    return {name.removeprefix(PREFIX): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def source_names(net: UCINet, available: Sequence[str], parts: Mapping[str, str]) -> dict[str, str]:
    """Name in the network -> name in the file, for all parameters of `parts` that both have.

    Inside a part, a layer of `LAYERS` goes by that name; if a part shares no name with the file, its parameters are
    paired in order of definition, which takes equal numbers of them.
    """
    own = [name for name, _ in net.named_parameters()]
    names: dict[str, str] = {}
    for pattern, source_pattern in parts.items():
        for i in range(NUM_STAGES):
            part, source_part = pattern.format(i=i, n=i + 1), source_pattern.format(i=i, n=i + 1)
            targets = [name for name in own if name.startswith(part)]
            sources = [name for name in available if name.startswith(source_part)]
            pairs = {name: source_part + renamed(name.removeprefix(part)) for name in targets}
            if not set(pairs.values()) & set(sources) and len(targets) == len(sources):
                pairs = dict(zip(targets, sources, strict=True))
            names |= {name: source for name, source in pairs.items() if source in sources}
    return names


def renamed(layer: str) -> str:
    """A name inside a part, e.g. ``0.attention.query.weight``, as the file spells it: ``0.attn.q.weight``."""
    for own, source in LAYERS.items():
        layer = layer.replace(own, source)
    return layer


def resized_embedding(net: UCINet, name: str, tensor: Tensor) -> Tensor:
    """Position embedding (1, [1 +] tokens, C) on the grid of the parameter `name`; the class token stays as it is."""
    _, _, modality, _, stage, _ = name.split(".")
    embedding = net.encoder.branches[modality].position_embeddings[int(stage)]
    split = int(embedding.class_token)
    class_token, tokens = tensor[:, :split], tensor[:, split:]
    grid = source_grid(tokens.shape[1], PRETRAINING_GRIDS[modality][int(stage)])
    volume = tokens.transpose(1, 2).reshape(1, -1, *grid).float()
    mode = "trilinear" if len(grid) == 3 else "bicubic"
    resized = F.interpolate(volume, embedding.grid, mode=mode, align_corners=False)
    return torch.cat([class_token.float(), resized.flatten(2).transpose(1, 2)], dim=1)


def source_grid(num_tokens: int, expected: Sequence[int]) -> tuple[int, ...]:
    """The grid of `num_tokens` tokens, square in plane, whose depth to width is nearest to that of `expected`.

    >>> source_grid(8 * 24 * 24, (8, 24, 24))
    (8, 24, 24)

    Raises:
        ValueError: no such grid has so many tokens.
    """
    grids: list[tuple[int, ...]]
    if len(expected) == 2:
        grids = [(math.isqrt(num_tokens), math.isqrt(num_tokens))]
    else:
        grids = [(num_tokens // (n * n), n, n) for n in range(1, math.isqrt(num_tokens) + 1)]
    grids = [grid for grid in grids if math.prod(grid) == num_tokens]
    if not grids:
        raise ValueError(f"a position embedding of {num_tokens} tokens fits no grid that is square in plane")
    return min(grids, key=lambda grid: abs(math.log(grid[0] / grid[-1]) - math.log(expected[0] / expected[-1])))
