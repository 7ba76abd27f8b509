"""CT decoder of the UCI network: three Transformer stages, two convolutional levels, a head at each of the five."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_ext.architectures.blocks import ConvBlock, TransformerBlock, recompute, to_grid, to_tokens
from nnunet_ext.architectures.position_embedding import PositionEmbedding
from nnunet_ext.architectures.uci_topology import NUM_STEM_LEVELS, Size, Topology, reduction_ratio

LEVELS = (4, 3, 2, 1, 0)
DECODER_NORM_EPS = 1e-5


class UCIDecoder(nn.Module):
    """Each level: transposed convolution, `ConvBlock`, + skip; in the Transformer stages also + position, block.

    The finest level has no `ConvBlock` unless `full_resolution_conv`; elsewhere the convolution precedes the addition
    of the skip in the Transformer stages and follows it in the convolutional levels, as the authors have it.

    `deep_supervision` is the attribute that nnU-Net switches; it changes no parameter name.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        topology: Topology,
        sizes: list[Size],
        features_per_stage: Sequence[int],
        heads_per_stage: Sequence[int],
        sr_ratios: Sequence[int],
        mlp_ratio: float,
        position_embedding: str,
        full_resolution_conv: bool,
        checkpoint_activations: bool,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        self.deep_supervision, self.checkpoint_activations, self.sizes = deep_supervision, checkpoint_activations, sizes
        widths = features_per_stage
        self.upsamples: Any = nn.ModuleList()
        self.convs: Any = nn.ModuleList()
        self.position_embeddings: Any = nn.ModuleList()
        self.blocks: Any = nn.ModuleList()
        self.seg_layers: Any = nn.ModuleList()
        for level in LEVELS:
            stride, width = topology.strides[level], widths[level]
            self.upsamples.append(nn.ConvTranspose3d(widths[level + 1], width, stride, stride))  # type: ignore[arg-type]
            if level > 0 or full_resolution_conv:
                self.convs.append(ConvBlock(width, width, topology.kernel_sizes[level]))
            self.seg_layers.append(nn.Conv3d(width, num_classes, 1))
            if level < NUM_STEM_LEVELS:
                continue
            stage = level - NUM_STEM_LEVELS
            ratios = {"ct": reduction_ratio(sr_ratios[stage], sizes[level])} if sr_ratios[stage] > 1 else None
            self.position_embeddings.append(PositionEmbedding(sizes[level], width, kind=position_embedding))
            self.blocks.append(
                TransformerBlock(
                    width,
                    heads_per_stage[stage],
                    ratios=ratios,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=False,
                    norm_eps=DECODER_NORM_EPS,
                )
            )
        self.norm = nn.LayerNorm(widths[NUM_STEM_LEVELS])

    def forward(self, features: list[Tensor]) -> Tensor | list[Tensor]:
        """Features of the encoder's six levels -> logits (B, num_classes, *size) of the five finer ones, finest first.

        Without deep supervision: the finest logits alone.
        """
        volume = to_grid(features[-1], self.sizes[-1])
        logits = []
        for i, level in enumerate(LEVELS[:-1]):
            decode = self._transformer_stage if level >= NUM_STEM_LEVELS else self._conv_level
            volume = decode(i, volume, features[level])
            if self.deep_supervision:
                logits.append(self.seg_layers[i](volume))
        finest = self._finest_logits(volume, features[0])
        return [finest, *logits[::-1]] if self.deep_supervision else finest

    def compute_feature_map_size(self, sizes: Sequence[Size]) -> int:
        """Values in the outputs of all layers, heads included, for one CT whose six levels have `sizes`."""
        total = 0
        for i, (level, head) in enumerate(zip(LEVELS, self.seg_layers, strict=True)):
            has_conv, voxels = i < len(self.convs), math.prod(sizes[level])
            # Without a convolution the finest level never stores its up-sampled features, see `linear_head`.
            total += voxels * (head.out_channels + (2 * head.in_channels if has_conv else head.out_channels))
            if i < len(self.blocks):
                total += self.blocks[i].compute_feature_map_size(sizes[level], "ct")
        return total

    def _transformer_stage(self, i: int, volume: Tensor, skip: Tensor) -> Tensor:
        size, last = self.sizes[LEVELS[i]], i == len(self.blocks) - 1
        recomputed = self.checkpoint_activations and last
        volume = crop(self.upsamples[i](volume), size)
        tokens = to_tokens(recompute(self.convs[i], volume, enabled=recomputed)) + skip  # B, prod(size), C
        tokens = self.position_embeddings[i](tokens)
        tokens = recompute(self.blocks[i], tokens, size, "ct", enabled=recomputed)
        return to_grid(self.norm(tokens) if last else tokens, size)

    def _conv_level(self, i: int, volume: Tensor, skip: Tensor) -> Tensor:
        volume = crop(self.upsamples[i](volume), self.sizes[LEVELS[i]]).add_(skip)
        return recompute(self.convs[i], volume, enabled=self.checkpoint_activations)

    def _finest_logits(self, volume: Tensor, skip: Tensor) -> Tensor:
        if len(self.convs) == len(LEVELS):
            return self.seg_layers[-1](self._conv_level(len(LEVELS) - 1, volume, skip))  # type: ignore[no-any-return]
        return linear_head(volume, skip, self.upsamples[-1], self.seg_layers[-1])


def linear_head(volume: Tensor, skip: Tensor, upsample: nn.ConvTranspose3d, head: nn.Conv3d) -> Tensor:
    """``head(upsample(volume) + skip)`` without the up-sampled features, the largest tensor of the network.

    Both layers are linear and the head is pointwise, so it is applied to the kernel of the transposed convolution
    in place of its output: ``head(U x + b + s) = (H U) x + H b + head(s)``.
    """
    matrix = head.weight.flatten(1)  # num_classes, C
    kernel = torch.einsum("oc,icxyz->ioxyz", matrix, upsample.weight)
    bias = None if upsample.bias is None else matrix @ upsample.bias
    logits = F.conv_transpose3d(volume, kernel, bias, upsample.stride)
    return crop(logits, skip.shape[2:]) + head(skip)  # type: ignore[no-any-return]


def crop(volume: Tensor, size: Sequence[int]) -> Tensor:
    """The first `size` voxels of each axis of (B, C, D, H, W): an up-sampled odd axis is one voxel too long."""
    return volume[:, :, : size[0], : size[1], : size[2]]
