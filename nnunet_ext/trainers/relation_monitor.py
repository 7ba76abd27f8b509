"""What becomes of the relations over an epoch: mean distances, mean matrices, the rank of the general features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunet_ext.losses.relation import effective_rank, relation_distance
from nnunet_ext.utilities.relation_record import DISTANCES, RANK_SERIES

COLLAPSE_SHARE = 0.25


class RelationMonitor:
    """Collects on the device, so that no step waits for a number."""

    def __init__(self) -> None:
        self._distances: dict[str, list[Tensor]] = {}
        self._sums: dict[str, Tensor] = {}
        self._num_steps = 0
        self._features: Tensor | None = None

    def update(self, matrices: Mapping[str, Tensor], general_features: Tensor) -> None:
        """Take the relation matrices (C, C) of a step and F_G(X^c) (B, C, *spatial); no graph is kept."""
        if self._features is None:  # the first step of an epoch
            self._sums, self._num_steps = {}, 0
        self._features = general_features.detach()
        self._num_steps += 1
        for name, matrix in matrices.items():
            self._sums[name] = self._sums.get(name, 0) + matrix.detach()
        for key, (first, second) in DISTANCES.items():
            if first in matrices:
                distance = relation_distance(matrices[first].detach(), matrices[second].detach())
                self._distances.setdefault(key, []).append(distance)

    def epoch_values(self) -> dict[str, float]:
        """Values since the last call: empty without a step.

        ``relation/general`` and ``relation/target`` are the mean d(R_G(X^n), R_G(X^c)) and d(R_G(X^c), R_T(X^c)),
        per row, whatever the loss uses; ``relation/general_rank`` the effective rank of the last F_G(X^c) over the
        largest possible one.
        """
        if self._features is None:
            return {}
        values = {key: float(torch.stack(steps).mean()) for key, steps in self._distances.items()}
        channels, positions = self._features.shape[1], self._features[0, 0].numel()
        values[RANK_SERIES] = float(effective_rank(self._features)) / min(channels, positions)
        self._distances, self._features = {}, None
        return values

    def matrices(self) -> dict[str, NDArray[np.float32]]:
        """The mean of the relation matrices over the steps of the last epoch: less the chance of one batch than those
        of a step. Empty before the first step; with several processes, of this process's steps."""
        return {name: (total / self._num_steps).float().cpu().numpy() for name, total in self._sums.items()}


def has_just_collapsed(ranks: Sequence[float]) -> bool:
    """Whether the last of a series of ranks, and not yet the one before it, is below a quarter of the highest.

    Ranks that are not a number (epochs without one) are passed over.
    """
    known = [rank for rank in ranks if rank == rank]
    highest = max(known, default=0.0)
    low = [rank < COLLAPSE_SHARE * highest for rank in known]
    return len(low) > 1 and low[-1] and not low[-2]
