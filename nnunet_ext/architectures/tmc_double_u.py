"""Segmentation part of TMC (section 3.3): LViT's two U-shaped paths, one of convolutions, one of tokens.

With the fused features F_i of stage i at four times the stride of x_{i-1}:
``x_i = DownCNN(cat(x_{i-1}, F_i))``, ``y_i = DownViT(cat(x_{i-1}, F_i), y_{i-1})``, i = 1..4. The token path keeps one
grid, a 16th of the image; going up again it adds to the skips of the convolutional path.

Where the paper is silent: F_i is normalised, projected to the channels of x_{i-1} and enlarged bilinearly; there is no
y_0; norms are instance norms, so that images of a batch stay independent; LViT's attention on the skips is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_ext.architectures.blocks import ConvBlock, TransformerBlock, to_grid, to_tokens

TOKEN_STRIDE = 16
TOKEN_HEADS = 8
POSITION_GRID = (14, 14)  # of LViT: 224 / 16
FEATURE_SCALE = 4  # from the stride of F_i to that of x_{i-1}


class DoubleU(nn.Module):
    """Image and fused features -> logits.

    Args:
        input_channels, num_classes: of image and logits.
        width: channels w at full resolution, a multiple of 8; x_0..x_4 have w, 2w, 4w, 8w, 8w, y_1..y_4 w, 2w, 4w, 8w.
        feature_widths: channels of F_1..F_4.
        token_depth: Transformer blocks of the token path per stage and direction.
    """

    def __init__(
        self, input_channels: int, num_classes: int, *, width: int, feature_widths: Sequence[int], token_depth: int
    ) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]  # x_0..x_3, y_1..y_4
        below = [*widths[1:], widths[-1]]  # x_1..x_4
        self.stem = ConvBlock(input_channels, width, (3, 3))
        self.fusions: Any = nn.ModuleList(Enlarged(c, w) for c, w in zip(feature_widths, widths, strict=True))
        self.down_convs: Any = nn.ModuleList(
            nn.Sequential(ConvBlock(2 * w, b, (3, 3)), ConvBlock(b, b, (3, 3)))
            for w, b in zip(widths, below, strict=True)
        )
        self.down_tokens: Any = nn.ModuleList(
            DownTokens(2 * w, w, TOKEN_STRIDE // 2**i, token_depth, previous=widths[i - 1] if i else None)
            for i, w in enumerate(widths)
        )
        self.up_tokens: Any = nn.ModuleList(
            UpTokens(w, token_depth, below=widths[i + 1] if i < 3 else None) for i, w in enumerate(widths)
        )
        self.reconstructions: Any = nn.ModuleList(ConvBlock(w, w, (1, 1)) for w in widths)
        # x of the level above has half the channels, but at full resolution nothing is above.
        above = [widths[0], *widths[:-1]]
        self.up_convs: Any = nn.ModuleList(UpConvs(w, a) for w, a in zip(widths, above, strict=True))
        self.head = nn.Conv2d(width, num_classes, 1)
        self.widths, self.above, self.below, self.token_depth = widths, above, below, token_depth

    def forward(self, image: Tensor, features: Sequence[Tensor]) -> Tensor:
        """image (B, input_channels, H, W), H and W multiples of 32; features: F_i (B, H_i, W_i, C_i).

        Returns: logits (B, num_classes, H, W).
        """
        grid = tuple(size // TOKEN_STRIDE for size in image.shape[2:])
        x = self.stem(image)
        skips: list[Tensor] = []
        levels: list[Tensor] = []
        for i, feature in enumerate(features):
            skips.append(x)
            joined = torch.cat([x, self.fusions[i](feature)], 1)
            levels.append(self.down_tokens[i](joined, levels[-1] if levels else None))
            x = self.down_convs[i](F.max_pool2d(joined, 2))

        tokens = None
        for i in reversed(range(len(skips))):
            tokens = self.up_tokens[i](levels[i], tokens)
            reconstructed = self.reconstructions[i](to_grid(tokens, grid))
            skips[i] = skips[i] + F.interpolate(reconstructed, skips[i].shape[2:])
        for i in reversed(range(len(skips))):
            x = self.up_convs[i](x, skips[i])
        return self.head(x)  # type: ignore[no-any-return]

    def compute_feature_map_size(self, size: Sequence[int]) -> int:
        """Number of values in the outputs of convolutions and linear layers for one image of `size`."""
        pixels = math.prod(size)
        total = pixels * (self.widths[0] + self.head.out_channels)
        for i, (width, above, below) in enumerate(zip(self.widths, self.above, self.below, strict=True)):
            total += pixels // 4**i * (width + 2 * above) + pixels // 4 ** (i + 1) * 2 * below
            # Per token: queries, keys, values, projection, MLP; both ways; patches, link, link, reconstruction.
            total += pixels // TOKEN_STRIDE**2 * width * (2 * 9 * self.token_depth + 4)
        return total


class Enlarged(nn.Module):
    """F_i (B, h, w, C) -> (B, channels, 4h, 4w)."""

    def __init__(self, feature_width: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(feature_width)
        self.projection = nn.Linear(feature_width, channels, bias=False)

    def forward(self, feature: Tensor) -> Tensor:
        """See class."""
        projected = self.projection(self.norm(feature)).permute(0, 3, 1, 2)
        return F.interpolate(projected, scale_factor=float(FEATURE_SCALE), mode="bilinear")


class DownTokens(nn.Module):
    """DownViT: patches of the joined features, plus what y_{i-1} says, through Transformer blocks.

    The first level adds a position, learned for a grid of 14 x 14 and resized to the image's; the others inherit it.
    """

    def __init__(self, in_channels: int, width: int, patch_size: int, depth: int, *, previous: int | None) -> None:
        super().__init__()
        self.patches = nn.Conv2d(in_channels, width, patch_size, patch_size)
        self.link = None if previous is None else nn.Linear(previous, width, bias=False)
        if previous is None:
            self.position = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, width, *POSITION_GRID), std=0.02))
        self.blocks = Blocks(width, depth)

    def forward(self, joined: Tensor, previous: Tensor | None) -> Tensor:
        """(B, in_channels, H_i, W_i) and y_{i-1} (B, N, previous) -> y_i (B, N, width)."""
        patches = self.patches(joined)
        if self.link is None:
            patches = patches + F.interpolate(self.position, patches.shape[2:], mode="bilinear")
        tokens = to_tokens(patches)
        return self.blocks(tokens if self.link is None else tokens + self.link(previous))  # type: ignore[no-any-return]


class UpTokens(nn.Module):
    """UpViT: y_i plus the tokens of the level below, through Transformer blocks."""

    def __init__(self, width: int, depth: int, *, below: int | None) -> None:
        super().__init__()
        self.link = None if below is None else nn.Linear(below, width)
        self.blocks = Blocks(width, depth)

    def forward(self, skip: Tensor, below: Tensor | None) -> Tensor:
        """y_i (B, N, width) and tokens (B, N, below) -> (B, N, width)."""
        return self.blocks(skip if self.link is None else skip + self.link(below))  # type: ignore[no-any-return]


class Blocks(nn.ModuleList):
    """Transformer blocks over all tokens of an image."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__(
            TransformerBlock(width, TOKEN_HEADS, ratios=None, mlp_ratio=4, qkv_bias=False) for _ in range(depth)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, width) -> (B, N, width)."""
        for block in self:
            tokens = block(tokens, (), "")
        return tokens


class UpConvs(nn.Module):
    """``conv(conv(cat(up(x), skip)))`` with `up` to twice the size, each pixel repeated."""

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        self.first = ConvBlock(2 * width, out_channels, (3, 3))
        self.second = ConvBlock(out_channels, out_channels, (3, 3))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, width, h, w) and (B, width, 2h, 2w) -> (B, out_channels, 2h, 2w)."""
        conv, norm, nonlinearity = self.first
        weight, width = cast(Tensor, conv.weight), x.shape[1]
        joined = convolve_doubled(x, weight[:, :width]) + F.conv2d(skip, weight[:, width:], padding=1)
        return self.second(nonlinearity(norm(joined)))  # type: ignore[no-any-return]


def convolve_doubled(x: Tensor, weight: Tensor) -> Tensor:
    """``conv2d(interpolate(x, scale_factor=2), weight, padding=1)`` for a 3 x 3 kernel, with 4/9 of the products and
    without the enlarged copy.

    Two of three taps meet the same pixel, so their weights are added first: with u[2j] = u[2j + 1] = x[j] and taps
    a, b, c, ``out[2j] = a x[j-1] + (b + c) x[j]`` and ``out[2j + 1] = (a + b) x[j] + c x[j+1]``, a transposed
    convolution.

    x (B, C, h, w), weight (O, C, 3, 3) -> (B, O, 2h, 2w).
    """
    kernel = weight.transpose(0, 1)
    for axis in (2, 3):
        a, b, c = kernel.unbind(axis)
        kernel = torch.stack([c, b + c, a + b, a], axis)
    return F.conv_transpose2d(x, kernel, stride=2, padding=1)
