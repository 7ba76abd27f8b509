"""Encoder of the UCI network: a convolutional stem and four Transformer stages, shared by CT and X-ray."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_ext.architectures.blocks import (
    ConvBlock,
    PatchEmbedding,
    TransformerBlock,
    recompute,
    split_class_token,
    to_grid,
    to_tokens,
)
from nnunet_ext.architectures.knowledge_interaction import KnowledgeBlock
from nnunet_ext.architectures.position_embedding import PositionEmbedding
from nnunet_ext.architectures.uci_topology import NUM_STAGES, NUM_STEM_LEVELS, Size, Topology, reduction_ratio


class ModalityBranch(nn.Module):
    """What a modality does not share: stem, patch embeddings, position embeddings and, for X-rays, the class token.

    `sizes` are those of the six levels, `features_per_stage` their channels.
    """

    def __init__(
        self,
        *,
        input_channels: int,
        topology: Topology,
        sizes: list[Size],
        features_per_stage: Sequence[int],
        position_embedding: str,
        has_class_token: bool,
    ) -> None:
        super().__init__()
        channels, kernels, widths = features_per_stage, topology.kernel_sizes, features_per_stage[NUM_STEM_LEVELS:]
        embeddings = [
            PatchEmbedding(channels[level - 1], channels[level], kernels[level], topology.strides[level - 1])
            for level in range(1, NUM_STEM_LEVELS + NUM_STAGES)
        ]
        self.stem = nn.ModuleList([ConvBlock(input_channels, channels[0], kernels[0]), embeddings[0]])
        self.patch_embeddings = nn.ModuleList(embeddings[1:])
        self.position_embeddings = nn.ModuleList(
            PositionEmbedding(size, width, kind=position_embedding, class_token=has_class_token)
            for size, width in zip(sizes[NUM_STEM_LEVELS:], widths, strict=True)
        )
        self.has_class_token = has_class_token
        if has_class_token:
            self.class_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, widths[0]), std=0.02))
            self.class_projections = nn.ModuleList(nn.Linear(narrow, wide) for narrow, wide in pairwise(widths))

    def tokens(self, stage: int, embedded: Tensor, class_token: Tensor) -> Tensor:
        """What enters the Transformer blocks of a stage.

        embedded (B, C, *size) from the patch embedding, class_token (B, 0 or 1, C of the stage before; ignored in
        the first stage) -> (B, [1 +] prod(size), C).
        """
        tokens = to_tokens(embedded)
        if self.has_class_token:
            if stage == 0:
                class_token = self.class_token.expand(len(embedded), -1, -1)
            else:
                class_token = self.class_projections[stage - 1](class_token)
            tokens = torch.cat([class_token, tokens], dim=1)
        return self.position_embeddings[stage](tokens)  # type: ignore[no-any-return]


class UCIEncoder(nn.Module):
    """Features of a CT or an X-ray at six levels.

    input_channels, topologies, sizes: per modality ("ct", and "xray" unless the network is CT only); `sizes` are those
    of the six levels. separate: each modality has Transformer blocks of its own. knowledge: keyword arguments of
    `KnowledgeBlock` for the blocks of the last stage, None for plain blocks there.
    """

    def __init__(
        self,
        *,
        input_channels: dict[str, int],
        topologies: dict[str, Topology],
        sizes: dict[str, list[Size]],
        features_per_stage: Sequence[int],
        blocks_per_stage: Sequence[int],
        heads_per_stage: Sequence[int],
        sr_ratios: Sequence[int],
        mlp_ratio: float,
        position_embedding: str,
        checkpoint_activations: bool,
        separate: bool,
        knowledge: dict[str, bool] | None,
    ) -> None:
        super().__init__()
        self.sizes, self.checkpoint_activations = sizes, checkpoint_activations
        self.branches: Any = nn.ModuleDict(
            {
                modality: ModalityBranch(
                    input_channels=input_channels[modality],
                    topology=topologies[modality],
                    sizes=sizes[modality],
                    features_per_stage=features_per_stage,
                    position_embedding=position_embedding,
                    has_class_token=modality == "xray",
                )
                for modality in sizes
            }
        )
        owners = {modality: [modality] for modality in sizes} if separate else {"shared": list(sizes)}
        self.stages: Any = nn.ModuleDict(
            {
                owner: nn.ModuleList(
                    make_stage(
                        blocks_per_stage[i],
                        features_per_stage[NUM_STEM_LEVELS + i],
                        heads_per_stage[i],
                        sr_ratios[i],
                        {modality: sizes[modality][NUM_STEM_LEVELS + i] for modality in modalities},
                        mlp_ratio=mlp_ratio,
                        knowledge=knowledge if i == NUM_STAGES - 1 else None,
                    )
                    for i in range(NUM_STAGES)
                )
                for owner, modalities in owners.items()
            }
        )

    def forward(self, image: Tensor, modality: str, banks: Any) -> list[Tensor]:
        """Features of the six levels, finest first.

        image (B, C, *size). Features of the stem are volumes (B, C, *size), those of the stages are tokens
        (B, [1 +] prod(size), C), with the class token of an X-ray in front. banks: for each block of the last stage the
        `PrototypeBank` of each modality; the last one serves the blocks that remain.

        Raises:
            ValueError: the image has not the size that the network was built for.
        """
        sizes, branch = self.sizes[modality], self.branches[modality]
        if tuple(image.shape[2:]) != sizes[0]:
            raise ValueError(f"{modality} input has size {tuple(image.shape[2:])}, the network is built for {sizes[0]}")

        features = []
        volume = image
        for layer in branch.stem:
            volume = recompute(layer, volume, enabled=self.checkpoint_activations)
            features.append(volume)

        class_token = image.new_empty(len(image), 0, 0)
        for i, blocks in enumerate(self.stages[self._owner(modality)]):
            size, recomputed = sizes[NUM_STEM_LEVELS + i], self.checkpoint_activations and i == 0
            embedded = recompute(branch.patch_embeddings[i], volume, enabled=recomputed)
            tokens = branch.tokens(i, embedded, class_token)
            for j, block in enumerate(blocks):
                if isinstance(block, KnowledgeBlock):
                    tokens = block(tokens, size, modality, banks[min(j, len(banks) - 1)])
                else:
                    tokens = recompute(block, tokens, size, modality, enabled=recomputed)
            features.append(tokens)
            class_token, voxels = split_class_token(tokens, size)
            volume = to_grid(voxels, size)
        return features

    def compute_feature_map_size(self, sizes: Sequence[Size]) -> int:
        """Values in the outputs of all layers for one CT whose six levels have `sizes`."""
        convs = [*self.branches["ct"].stem, *self.branches["ct"].patch_embeddings]
        total: int = sum(math.prod(size) * conv.num_feature_maps for size, conv in zip(sizes, convs, strict=True))
        for size, blocks in zip(sizes[NUM_STEM_LEVELS:], self.stages[self._owner("ct")], strict=True):
            total += sum(block.compute_feature_map_size(size, "ct") for block in blocks)
        return total

    def _owner(self, modality: str) -> str:
        return modality if modality in self.stages else "shared"


def make_stage(
    num_blocks: int,
    channels: int,
    num_heads: int,
    sr_ratio: int,
    grids: dict[str, Size],
    *,
    mlp_ratio: float,
    knowledge: dict[str, bool] | None = None,
) -> nn.ModuleList:
    """The Transformer blocks of one stage; `grids` per modality, `sr_ratio` nominal, `knowledge` as in `UCIEncoder`."""
    ratios = {m: reduction_ratio(sr_ratio, grid) for m, grid in grids.items()} if sr_ratio > 1 else None
    if knowledge is None:
        blocks = [TransformerBlock(channels, num_heads, ratios=ratios, mlp_ratio=mlp_ratio) for _ in range(num_blocks)]
    else:
        blocks = [
            KnowledgeBlock(channels, num_heads, ratios=ratios, mlp_ratio=mlp_ratio, **knowledge)
            for _ in range(num_blocks)
        ]
    return nn.ModuleList(blocks)
