"""Relations between feature channels, and the losses on them (Zhang et al., IEEE JBHI 25(11), 2021, Eq. 1, 2, 4, 5).

Everything is computed in fp32 with autocast off: a Gram matrix of fp16 features overflows. fp64 stays fp64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BATCH_RELATIONS = ("mean_first", "per_sample")
REDUCTIONS = ("sum_per_row", "sum", "mean")
SMALLEST_ROW_NORM = 1e-6
"""Rows of the Gram matrix below this norm are dead channels; bounds the gradient that they receive."""


def relation_matrix(features: Tensor, batch: str = "mean_first") -> Tensor:
    """Channel-wise feature relation R: the Gram matrix G = A A^T (Eq. 1) with L2-normalised rows (Eq. 2).

    Args:
        features: (B, C, *spatial), B and all sizes at least 1.
        batch: ``mean_first``: A is the mean of the features over the batch (the paper); ``per_sample``: G is the mean
            of the samples' Gram matrices. The two are not the same.

    Returns: (C, C), fp32 (fp64 for fp64 features). The row of a channel that is zero everywhere is zero.

    Raises:
        ValueError: another `batch`.
    """
    if batch not in BATCH_RELATIONS:
        raise ValueError(f"batch={batch!r} is not one of {', '.join(BATCH_RELATIONS)}")
    with torch.autocast(features.device.type, enabled=False):
        activations = _wide(features).flatten(2)  # B, C, N
        if batch == "mean_first":
            activations = activations.mean(0, keepdim=True)
        gram = (activations @ activations.transpose(1, 2)).mean(0)
        return F.normalize(gram, dim=1, eps=SMALLEST_ROW_NORM)


def relation_distance(first: Tensor, second: Tensor, reduction: str = "sum_per_row") -> Tensor:
    """Squared Frobenius distance ``||first - second||^2`` of two relation matrices (C, C), a scalar.

    Args:
        first, second: (C, C) as `relation_matrix` gives them.
        reduction: ``sum``: as printed in Eq. 4 and 5, at most 4 C; ``sum_per_row``: divided by the C rows, at most 4;
            ``mean``: divided by the C^2 elements.

    Raises:
        ValueError: another `reduction`.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction={reduction!r} is not one of {', '.join(REDUCTIONS)}")
    with torch.autocast(first.device.type, enabled=False):
        total = (first - second).square().sum()
        return total / {"sum": 1, "sum_per_row": len(first), "mean": first.numel()}[reduction]


def general_relation_loss(non_target: Tensor, target: Tensor, reduction: str = "sum_per_row") -> Tensor:
    """Eq. 4 without its weight: pulls R_G(X^n) and R_G(X^c) together, so that the general encoder stays general."""
    return relation_distance(non_target, target, reduction)


def target_relation_loss(general: Tensor, target: Tensor, reduction: str = "sum_per_row") -> Tensor:
    """Eq. 5 without its weight: pushes R_T(X^c) away from R_G(X^c). Bounded, as the rows are unit vectors."""
    return -relation_distance(general, target, reduction)


def effective_rank(features: Tensor) -> Tensor:
    """exp(entropy) of the singular values of the batch's mean features (C, N), as shares of their sum.

    1 for features that are constant over the positions (or multiples of one map), up to min(C, N); 0 where all are
    zero. A scalar without gradient, fp32 (fp64 for fp64 features).

    Args:
        features: (B, C, *spatial).
    """
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        values = torch.linalg.svdvals(_wide(features).flatten(2).mean(0))
        shares = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
        return torch.where(values.sum() > 0, torch.special.entr(shares).sum().exp(), 0.0)


def _wide(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()
