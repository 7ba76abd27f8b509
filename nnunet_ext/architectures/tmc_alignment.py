"""The space in which TMC compares a sentence with its image, at each stage before their features are fused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Alignment(NamedTuple):
    """What the alignment losses compare, one entry for each stage, all fp32."""

    maps: list[Tensor]
    """(B, h, w), cosine of the sentence and each cell, ``h = ceil(H / stride)``: the padding of the image is cut off,
    but for what shares a cell with its last pixels."""
    pooled_vision: list[Tensor]
    """(B, D), mean of z_V over the cells of the map."""
    text: list[Tensor]
    """(B, D), z_L."""


class StageAlignment(nn.Module):
    """``z_V = Linear(V)`` and ``z_L = Linear(CLS)`` of one stage, and their cosine; fp32 whatever autocast says."""

    def __init__(self, vision_width: int, text_width: int, align_width: int) -> None:
        super().__init__()
        self.vision = nn.Linear(vision_width, align_width)
        self.text = nn.Linear(text_width, align_width)

    def forward(self, vision: Tensor, class_token: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """V (B, h', w', vision_width) and CLS (B, text_width) -> entries of `Alignment` for the first ``h x w = size``
        cells."""
        with torch.autocast(vision.device.type, enabled=False):
            z_vision = self.vision(vision[:, : size[0], : size[1]].float())  # B, h, w, D
            z_text = self.text(class_token.float())  # B, D
            cosine = torch.einsum("bhwd,bd->bhw", F.normalize(z_vision, dim=-1), F.normalize(z_text, dim=-1))
            return cosine, z_vision.mean((1, 2)), z_text
