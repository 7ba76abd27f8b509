"""Which modalities a training iteration sees, and how much MA lets through of each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Subset = tuple[int, ...]
"""Positions of the modalities that are there, ascending."""


def draw_subsets(absent: Sequence[float], count: int) -> list[Subset]:
    """`count` subsets, drawn from torch's global generator: each modality is left out with its own probability, and
    again where none is left.

    Args:
        absent: probability of each modality to be left out, below 1.
    """
    probabilities, subsets = torch.tensor(absent), list[Subset]()
    while len(subsets) < count:
        present = torch.rand(len(absent)) >= probabilities
        if present.any():
            subsets.append(tuple(torch.nonzero(present).flatten().tolist()))
    return subsets


class GateMonitor:
    """Mean gate of each modality over the iterations of an epoch in which it took part in the attention."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.reset()

    def reset(self) -> None:
        """Start anew."""
        self._values: dict[int, list[Tensor]] = {}

    def update(self, attention: Tensor, present: Subset) -> None:
        """Take one batch's gates (B, present modalities, *spatial); their mean stays on its device."""
        for value, index in zip(attention.transpose(0, 1).flatten(1).float().mean(1), present, strict=True):
            self._values.setdefault(index, []).append(value)

    def means(self) -> dict[str, float]:
        """Name -> mean gate in [0, 1], of the modalities that were seen."""
        return {self.names[i]: float(torch.stack(self._values[i]).mean()) for i in sorted(self._values)}
