"""Learned position embeddings of a token grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PositionEmbedding(nn.Module):
    """Adds a learned vector to each token of a fixed grid.

    ``kind="full"``: one vector per token. ``kind="factorised"``: the sum of one vector per row of each axis, which
    needs D + H + W vectors in place of D * H * W. A class token, if there is one, comes first and has its own vector.
    """

    def __init__(self, grid: Sequence[int], channels: int, *, kind: str = "full", class_token: bool = False) -> None:
        super().__init__()
        if kind not in ("full", "factorised"):
            raise ValueError(f"position_embedding={kind!r} is neither 'full' nor 'factorised'")
        self.grid, self.class_token = tuple(grid), class_token
        if kind == "full":
            self.tokens = nn.Parameter(torch.empty(1, class_token + math.prod(grid), channels))
        else:
            self.axes = nn.ParameterList(nn.Parameter(torch.empty(n, channels)) for n in grid)
            if class_token:
                self.class_vector = nn.Parameter(torch.empty(1, 1, channels))
        for parameter in self.parameters():
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, [1 +] prod(grid), C) -> the same shape."""
        return tokens + self.embedding()

    def embedding(self) -> Tensor:
        """(1, [1 +] prod(grid), C)."""
        if hasattr(self, "tokens"):
            return self.tokens
        total = self.axes[0]  # D, C
        for vectors in self.axes[1:]:
            total = total.unsqueeze(-2) + vectors  # D, H, C, then D, H, W, C
        embedding = total.flatten(0, -2).unsqueeze(0)
        return torch.cat([self.class_vector, embedding], dim=1) if self.class_token else embedding
