"""The mutual learning loss (Zhang et al., Modality-aware mutual learning, MICCAI 2021, Eq. 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class MAMLLoss(nn.Module):
    """``L = w_joint L_joint + lambda sum_i L_intra(i)`` with deep supervision inside every stream:
    ``L_joint = l(joint, y_0)``, ``L_intra(i) = sum_j w_j l(s_i^j, y_j)`` and ``sum_j w_j = 1``.

    Args:
        loss: l, a segmentation loss (logits, target) -> scalar.
        level_weights: w_j, finest level first; divided by their sum here.
        num_streams: of the outputs that `forward` takes.
        intra_weight: lambda.
        joint_weight: w_joint.

    A term of weight 0 is not computed.

    Raises:
        ValueError: no level has a positive weight.
    """

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor], Tensor],
        level_weights: Sequence[float],
        num_streams: int,
        *,
        intra_weight: float = 0.5,
        joint_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not sum(level_weights) > 0:  # nnU-Net's weights of a single level are not numbers
            raise ValueError(f"level_weights={list(level_weights)!r} must have a positive sum")
        self.loss, self.num_streams = loss, num_streams
        self.level_weights = tuple(float(weight / sum(level_weights)) for weight in level_weights)
        self.intra_weight, self.joint_weight = intra_weight, joint_weight

    def forward(self, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Eq. 3, a scalar; see `terms`."""
        joint, intra = self.terms(outputs, targets)
        return torch.stack([term for term in (joint, *intra) if term is not None]).sum()

    def terms(
        self, outputs: Sequence[Tensor], targets: Sequence[Tensor], num_streams: int | None = None
    ) -> tuple[Tensor | None, list[Tensor]]:
        """The weighted terms of Eq. 3.

        Args:
            outputs: logits (B, classes, *spatial): joint, then for each stream its levels, finest first.
            targets: (B, 1 or regions, *spatial), one per level, finest first.
            num_streams: how many streams there are, if not as many as the constructor says.

        Returns: w_joint L_joint, None where its weight is 0; lambda L_intra(i) of each stream, none where lambda is 0.

        Raises:
            ValueError: not as many outputs as streams and levels make, or not one target per level.
        """
        levels, num_streams = len(self.level_weights), self.num_streams if num_streams is None else num_streams
        expected = 1 + num_streams * levels
        if len(outputs) != expected or len(targets) != levels:
            raise ValueError(
                f"{len(outputs)} outputs and {len(targets)} targets for a joint output and {num_streams} streams of"
                f" {levels} levels; there must be {expected} and {levels}"
            )
        joint = self.joint_weight * self.loss(outputs[0], targets[0]) if self.joint_weight else None
        if not self.intra_weight:
            return joint, []
        streams = [outputs[first : first + levels] for first in range(1, expected, levels)]
        return joint, [self.intra_weight * self._deep_supervision(stream, targets) for stream in streams]

    def _deep_supervision(self, levels: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """L_intra of one stream."""
        triples = zip(self.level_weights, levels, targets, strict=True)
        return torch.stack([weight * self.loss(logits, target) for weight, logits, target in triples if weight]).sum()
