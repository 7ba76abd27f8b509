"""Image-level losses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def classification_loss(logits: Tensor, labels: Tensor, task: str) -> Tensor:
    """Mean loss of image-level labels.

    Args:
        logits: (B, C).
        labels: ``multilabel``: (B, C) in [0, 1], binary cross-entropy per class; ``multiclass``: (B,) class indices,
            softmax cross-entropy.

    Returns: scalar, fp32.

    Raises:
        ValueError: another task.
    """
    if task == "multilabel":
        return F.binary_cross_entropy_with_logits(logits.float(), labels.float())
    if task == "multiclass":
        return F.cross_entropy(logits.float(), labels)
    raise ValueError(f"task={task!r} is neither multilabel nor multiclass")
