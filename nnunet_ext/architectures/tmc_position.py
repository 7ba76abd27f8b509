"""Where the cells of a feature map lie in their image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LONGEST_WAVE, OCTAVES = 4.0, 5


def sine_positions(
    grid: Sequence[int], cell: Sequence[float], channels: int, *, device: torch.device | None = None
) -> Tensor:
    """Sines and cosines of the place of each cell's centre, which is 0 at the upper left corner of the image and 1 at
    the lower right one, whatever the image's size in pixels.

    Args:
        grid: rows and columns, h and w.
        cell: height and width of a cell over those of the image; cells may lie outside, in its padding.
        channels: a quarter of them each for sine and cosine of row and of column, with waves from `LONGEST_WAVE` image
            edges down by `OCTAVES` octaves; the rest of a division by 4 is zero.

    Returns: (h * w, channels) fp32, row by row.
    """
    octaves = torch.linspace(0, OCTAVES, channels // 4, device=device)
    frequencies = 2 * math.pi / LONGEST_WAVE * 2**octaves
    axes = []
    for cells, edge in zip(grid, cell, strict=True):
        phase = (torch.arange(cells, device=device) + 0.5)[:, None] * edge * frequencies  # cells, channels / 4
        axes.append(torch.cat([phase.sin(), phase.cos()], 1))
    rows, columns = axes
    positions = torch.cat(
        [rows[:, None].expand(-1, grid[1], -1), columns[None].expand(grid[0], -1, -1)], 2
    )  # h, w, channels
    return F.pad(positions.flatten(0, 1), (0, channels % 4))
