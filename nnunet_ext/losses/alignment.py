"""Multi-stage alignment of text and image (Chen & Pan, arXiv 2506.07475, section 3.2).

With ``s = exp(log_scale) = 1 / tau``, at most `LARGEST_SCALE`, one for each stage. As printed the loss of a stage is
``-log sigmoid(s sim) - log(1 - sigmoid(s sim))``, whose minimum is at sim = 0: it makes text and image orthogonal
(`literal_alignment`). Its two terms are those of a binary cross-entropy, the first for what the text means and the
second for what it does not: the pixels inside and outside the mask (`pixel_alignment`), or the image's own sentence and
those of the other images (`siglip_alignment`).

All of them compute in fp32, whatever autocast says, and return a scalar.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_SCALE = 100.0
SMALLEST_SHARE = 1e-6


def pixel_alignment(
    cosine: Tensor, target: Tensor, log_scale: Tensor, bias: Tensor, *, stride: int, valid: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of ``sigmoid(s cos + b)`` against the share of target in each cell of the map.

    Args:
        cosine: (B, h, w), cosine of the sentence and each cell, ``h = ceil(H / stride)``.
        target: (B, 1, H, W) in [0, 1], what the sentence means.
        log_scale, bias: scalars.
        stride: edge of a cell, pixels; cells at the right and lower edge may be cut.
        valid: (B, 1, H, W) in [0, 1], the pixels that count; None: all.

    Returns: mean over cells, each with the share of its pixels that count; 0 where none does.
    """
    with _full_precision(cosine):
        logits = scale(log_scale) * cosine.float() + bias.float()
        if valid is None:
            return F.binary_cross_entropy_with_logits(logits, cell_mean(target, stride)[:, 0])
        weight = cell_mean(valid, stride)[:, 0]
        share = cell_mean(target * valid, stride)[:, 0] / weight.clamp_min(SMALLEST_SHARE)
        loss = F.binary_cross_entropy_with_logits(logits, share, reduction="none")
        return (loss * weight).sum() / weight.sum().clamp_min(SMALLEST_SHARE)


def siglip_alignment(vision: Tensor, text: Tensor, tokens: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """``-1/B sum_ij log sigmoid(z_ij (s cos(v_i, t_j) + b))``, z_ij = 1 where image i has sentence j, else -1 (SigLIP).

    Args:
        vision, text: (B, D).
        tokens: (B, T) or (1, T), token ids; images with equal rows have the same sentence.
        log_scale, bias: scalars.
    """
    with _full_precision(vision):
        cosine = F.normalize(vision.float(), dim=1) @ F.normalize(text.float(), dim=1).T  # B images, B sentences
        tokens = tokens.expand(len(vision), -1)
        same = (tokens[:, None] == tokens[None]).all(2)
        logits = scale(log_scale) * cosine + bias.float()
        return -F.logsigmoid(torch.where(same, logits, -logits)).sum() / len(vision)


def literal_alignment(vision: Tensor, text: Tensor, log_scale: Tensor) -> Tensor:
    """The printed formula, mean over images: at least 2 log 2.

    vision, text: (B, D), an image and its own sentence. log_scale: scalar.
    """
    with _full_precision(vision):
        logits = scale(log_scale) * F.cosine_similarity(vision.float(), text.float(), dim=1)
        return -(F.logsigmoid(logits) + F.logsigmoid(-logits)).mean()


def alignment_loss(
    mode: str,
    *,
    maps: Sequence[Tensor],
    pooled_vision: Sequence[Tensor],
    text: Sequence[Tensor],
    tokens: Tensor,
    target: Tensor,
    log_scales: Tensor,
    biases: Tensor | None,
    strides: Sequence[int],
    valid: Tensor | None = None,
) -> Tensor:
    """``L_align = 1/n sum_i L_align^i`` over the n stages.

    Args:
        mode: ``pixel``, ``siglip`` or ``literal``.
        maps, pooled_vision, text: one of each per stage, see the three functions.
        log_scales, biases: (n,); ``literal`` has no bias.
        strides: of the stages.

    Raises:
        ValueError: another mode, or no bias where one is needed.
    """
    if mode not in ("pixel", "siglip", "literal") or (biases is None and mode != "literal"):
        raise ValueError(f"mode={mode!r} with biases={biases} is not an alignment")
    terms = []
    for i, stride in enumerate(strides):
        if mode == "literal" or biases is None:
            terms.append(literal_alignment(pooled_vision[i], text[i], log_scales[i]))
        elif mode == "siglip":
            terms.append(siglip_alignment(pooled_vision[i], text[i], tokens, log_scales[i], biases[i]))
        else:
            terms.append(pixel_alignment(maps[i], target, log_scales[i], biases[i], stride=stride, valid=valid))
    return torch.stack(terms).mean()


def scale(log_scale: Tensor) -> Tensor:
    """``min(exp(log_scale), LARGEST_SCALE)``, fp32."""
    return log_scale.float().clamp(max=math.log(LARGEST_SCALE)).exp()


def cell_mean(pixels: Tensor, stride: int) -> Tensor:
    """(B, 1, H, W) -> (B, 1, ceil(H / stride), ceil(W / stride)): mean over the pixels of each cell, fp32."""
    return F.avg_pool2d(pixels.float(), stride, ceil_mode=True)


def _full_precision(x: Tensor) -> Any:
    return torch.autocast(x.device.type, enabled=False)
