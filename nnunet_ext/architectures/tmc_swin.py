"""Vision stages of TMC: a Swin Transformer that is called stage by stage, for images of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from timm.layers.patch_embed import PatchEmbed
from timm.models.swin_transformer import SwinTransformerStage, WindowAttention
from torch import Tensor, nn

NUM_STAGES = 4
PATCH_SIZE = 4
STRIDES = tuple(PATCH_SIZE * 2**stage for stage in range(NUM_STAGES))
"""Pixels per token and axis, of each stage."""


class SwinStages(nn.Module):
    """The patch embedding and the four stages of timm's Swin Transformer under timm's names; no last norm, no head.

    Args:
        input_channels: of the image.
        width: channels of the first stage; each further one has twice as many.
        depths, heads: blocks and attention heads of each stage.
        window: edge of a window, tokens.

    Attributes:
        widths: channels of each stage.
    """

    def __init__(
        self, input_channels: int, *, width: int, depths: Sequence[int], heads: Sequence[int], window: int
    ) -> None:
        super().__init__()
        self.widths = tuple(width * 2**stage for stage in range(NUM_STAGES))
        self.depths, self.window = tuple(depths), window
        self.patch_embed = PatchEmbed(
            img_size=None,
            patch_size=PATCH_SIZE,
            in_chans=input_channels,
            embed_dim=width,
            norm_layer=nn.LayerNorm,
            output_fmt="NHWC",
        )
        self.layers: Any = nn.ModuleList(
            SwinTransformerStage(
                dim=self.widths[max(stage - 1, 0)],
                out_dim=self.widths[stage],
                input_resolution=(window, window),  # unread: windows are cut from whatever comes
                depth=depths[stage],
                downsample=stage > 0,
                num_heads=heads[stage],
                window_size=window,
                always_partition=True,
                dynamic_mask=True,
            )
            for stage in range(NUM_STAGES)
        )
        for module in self.modules():
            _initialise(module)

    def forward(self, stage: int, x: Tensor) -> Tensor:
        """One stage.

        Args:
            stage: 0 to 3.
            x: stage 0: the image (B, channels, H, W), H and W multiples of 32; later: the fused features
                (B, h, w, C) of the stage before.

        Returns: V of this stage, (B, H / STRIDES[stage], W / STRIDES[stage], widths[stage]).
        """
        x = self.patch_embed(x) if stage == 0 else self.layers[stage].downsample(x)
        for block in self.layers[stage].blocks:
            # As in Swin: an axis that is one window has nothing to shift.
            block.shift_size = tuple(
                0 if size <= self.window else shift
                for size, shift in zip(x.shape[1:3], block.target_shift_size, strict=True)
            )
            x = block(x)
        return x

    def compute_feature_map_size(self, size: Sequence[int]) -> int:
        """Number of values in the outputs of the linear layers for one image of `size`."""
        total = 0
        for stage, stride in enumerate(STRIDES):
            tokens = math.prod(size) // stride**2
            total += tokens * self.widths[stage] * (1 + 9 * self.depths[stage])  # qkv 3, projection 1, MLP 4 + 1
        return total


def _initialise(module: nn.Module) -> None:
    """As Swin starts: Linear truncated normal, biases 0. Tables of relative positions do so by themselves."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, WindowAttention):
        module.fused_attn = True  # scaled_dot_product_attention; to timm still an experiment
