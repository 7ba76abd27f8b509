"""Building blocks of the UCI network: convolutions, spatial-reduction attention, Transformer block.

Tokens are (B, N, C), the voxels of a grid in row-major order; an X-ray carries its class token in front of them.
What depends on the number of dimensions exists once per modality ("ct", "xray"); the rest is shared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnunet_ext.architectures.uci_topology import Size

ENCODER_NORM_EPS = 1e-6


def convolution(dimensions: int) -> type[nn.Conv2d] | type[nn.Conv3d]:
    """The convolution of a 2D or 3D modality."""
    return nn.Conv2d if dimensions == 2 else nn.Conv3d


class ConvBlock(nn.Sequential):
    """Convolution without bias -> instance norm -> leaky ReLU; shrinks each axis to ``ceil(size / stride)``."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size | int = 1) -> None:
        dimensions = len(kernel_size)
        norm = nn.InstanceNorm2d if dimensions == 2 else nn.InstanceNorm3d
        padding = tuple(k // 2 for k in kernel_size)
        super().__init__(
            convolution(dimensions)(in_channels, out_channels, kernel_size, stride, padding, bias=False),  # type: ignore[arg-type]
            norm(out_channels, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        )
        self.num_feature_maps = out_channels


class PatchEmbedding(nn.Sequential):
    """Overlapping patch embedding: a strided `ConvBlock`, then one that refines it."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, stride: Size) -> None:
        super().__init__(
            ConvBlock(in_channels, out_channels, kernel_size, stride),
            ConvBlock(out_channels, out_channels, kernel_size),
        )
        self.num_feature_maps = 2 * out_channels


class SpatialReduction(nn.Module):
    """Shortens a token sequence: depthwise strided convolution per modality, then one shared layer norm.

    A class token in front of the grid bypasses the convolution.
    """

    def __init__(self, channels: int, ratios: Mapping[str, Size]) -> None:
        super().__init__()
        self.convs: Any = nn.ModuleDict(
            {
                modality: convolution(len(ratio))(channels, channels, ratio, ratio, groups=channels)  # type: ignore[arg-type]
                for modality, ratio in ratios.items()
            }
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, grid: Size, modality: str) -> Tensor:
        """(B, [1 +] prod(grid), C) -> (B, [1 +] prod(grid) / prod(ratio), C)."""
        class_token, voxels = split_class_token(tokens, grid)
        reduced = to_tokens(self.convs[modality](to_grid(voxels, grid)))
        return self.norm(torch.cat([class_token, reduced], dim=1))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Multi-head attention whose keys and values come from a spatially reduced copy of the tokens."""

    def __init__(
        self, channels: int, num_heads: int, *, ratios: Mapping[str, Size] | None, qkv_bias: bool = True
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(channels, channels, bias=qkv_bias)
        self.key_value = nn.Linear(channels, 2 * channels, bias=qkv_bias)
        self.projection = nn.Linear(channels, channels)
        self.reduction = SpatialReduction(channels, ratios) if ratios is not None else None

    def reduce(self, tokens: Tensor, grid: Size, modality: str) -> Tensor:
        """The tokens that keys and values are made of."""
        return tokens if self.reduction is None else self.reduction(tokens, grid, modality)

    def keys_and_values(self, reduced: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M, C) -> two of (B, M, C)."""
        keys, values = self.key_value(reduced).chunk(2, dim=-1)
        return keys, values

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, N, C) attends to (B, M, C); `mask` (M,) bool is True for the keys that take part."""
        attended = multi_head_attention(self.query(tokens), keys, values, self.num_heads, mask)
        return self.projection(attended)  # type: ignore[no-any-return]


class MLP(nn.Sequential):
    """Linear -> GELU -> Linear, token by token."""

    def __init__(self, channels: int, ratio: float) -> None:
        hidden_channels = int(channels * ratio)
        super().__init__(nn.Linear(channels, hidden_channels), nn.GELU(), nn.Linear(hidden_channels, channels))
        self.channels, self.hidden_channels = channels, hidden_channels


class TransformerBlock(nn.Module):
    """``x += Attention(norm(x)); x += MLP(norm(x))`` with spatial-reduction attention."""

    def __init__(
        self,
        channels: int,
        num_heads: int,
        *,
        ratios: Mapping[str, Size] | None,
        mlp_ratio: float,
        qkv_bias: bool = True,
        norm_eps: float = ENCODER_NORM_EPS,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=norm_eps)
        self.attention = Attention(channels, num_heads, ratios=ratios, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(channels, eps=norm_eps)
        self.mlp = MLP(channels, mlp_ratio)

    def forward(self, tokens: Tensor, grid: Size, modality: str) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        normed = self.norm1(tokens)
        keys, values = self.attention.keys_and_values(self.attention.reduce(normed, grid, modality))
        tokens = tokens + self.attention(normed, keys, values)
        return tokens + self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]

    def compute_feature_map_size(self, grid: Size, modality: str) -> int:
        """Values in the outputs of the linear layers and the spatial reduction for one image on `grid`."""
        channels, hidden = self.mlp.channels, self.mlp.hidden_channels
        num_tokens, keys_per_token = math.prod(grid), 2 * channels
        reduction = self.attention.reduction
        if reduction is None:
            return num_tokens * (3 * channels + hidden + keys_per_token)
        num_keys: int = num_tokens // math.prod(reduction.convs[modality].stride)
        return num_tokens * (3 * channels + hidden) + num_keys * (channels + keys_per_token)


def multi_head_attention(
    queries: Tensor, keys: Tensor, values: Tensor, num_heads: int, mask: Tensor | None = None
) -> Tensor:
    """``softmax(Q K^T / sqrt(C / heads)) V`` per head, heads merged again.

    queries (B, N, C), keys and values (B, M, C), mask (M,) bool or None -> (B, N, C).
    """
    q, k, v = (
        x.reshape(*x.shape[:2], num_heads, -1).transpose(1, 2) for x in (queries, keys, values)
    )  # B, heads, N, C/heads
    if mask is not None:
        mask = mask.expand(q.shape[0], 1, q.shape[2], -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def split_class_token(tokens: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(B, [1 +] prod(grid), C) -> (B, 0 or 1, C), (B, prod(grid), C)."""
    num_class_tokens = tokens.shape[1] - math.prod(grid)
    return tokens[:, :num_class_tokens], tokens[:, num_class_tokens:]


def to_tokens(volume: Tensor) -> Tensor:
    """(B, C, *grid) -> (B, prod(grid), C), contiguous."""
    return volume.flatten(2).transpose(1, 2).contiguous()


def to_grid(tokens: Tensor, grid: Size) -> Tensor:
    """(B, prod(grid), C) -> (B, C, *grid), a view."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid)


def recompute(layer: nn.Module, *inputs: Any, enabled: bool) -> Tensor:
    """``layer(*inputs)``; if enabled, its activations are not stored but computed anew in the backward pass."""
    if enabled and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False)  # type: ignore[no-any-return]
    return layer(*inputs)  # type: ignore[no-any-return]
