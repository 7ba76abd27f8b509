"""Knowledge-guided interaction (KI): a Transformer block in which one modality reads the other's prototypes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nnunet_ext.architectures.blocks import (
    ENCODER_NORM_EPS,
    MLP,
    TransformerBlock,
    multi_head_attention,
)
from nnunet_ext.architectures.prototypes import PrototypeBank
from nnunet_ext.architectures.uci_topology import Size

OTHER = {"ct": "xray", "xray": "ct"}


class PrototypeWarmUp(nn.Module):
    """First attention of KI: prototypes of one modality adapt to the features of the other.

    ``P1 = P + Linear(MHA(norm(P), norm(K), norm(V))); P' = P1 + MLP(norm(P1))``. As the authors have it, queries, keys
    and values have a layer norm each and no linear layer.
    """

    def __init__(self, channels: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_query = nn.LayerNorm(channels, eps=ENCODER_NORM_EPS)
        self.norm_key = nn.LayerNorm(channels, eps=ENCODER_NORM_EPS)
        self.norm_value = nn.LayerNorm(channels, eps=ENCODER_NORM_EPS)
        self.projection = nn.Linear(channels, channels)
        self.norm_mlp = nn.LayerNorm(channels, eps=ENCODER_NORM_EPS)
        self.mlp = MLP(channels, mlp_ratio)

    def forward(self, prototypes: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """prototypes (B, K, D), keys and values (B, N, D) -> adapted prototypes (B, K, D)."""
        queries = self.norm_query(prototypes)
        attended = multi_head_attention(queries, self.norm_key(keys), self.norm_value(values), self.num_heads)
        adapted = prototypes + self.projection(attended)
        return adapted + self.mlp(self.norm_mlp(adapted))  # type: ignore[no-any-return]


class KnowledgeBlock(TransformerBlock):
    """A Transformer block that condenses its own modality and attends to the prototypes of the other.

    Keys and values are those of the block's own (reduced) tokens and, behind them, the adapted prototypes of the other
    modality: the same for both (the authors), or sent through the block's key/value layer (`project_prototypes`).
    Prototypes not yet initialised are masked out. `include_class_token`: whether it is condensed as well.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        *,
        ratios: Mapping[str, Size] | None,
        mlp_ratio: float,
        warm_up: bool = True,
        project_prototypes: bool = False,
        include_class_token: bool = False,
    ) -> None:
        super().__init__(channels, num_heads, ratios=ratios, mlp_ratio=mlp_ratio)
        self.warm_up = PrototypeWarmUp(channels, num_heads, mlp_ratio) if warm_up else None
        self.project_prototypes, self.include_class_token = project_prototypes, include_class_token

    def forward(
        self, tokens: Tensor, grid: Size, modality: str, banks: Mapping[str, PrototypeBank] | None = None
    ) -> Tensor:
        """(B, [1 +] prod(grid), C) -> the same shape. In training with gradients, also updates ``banks[modality]``.

        Without banks this is the plain block.
        """
        normed = self.norm1(tokens)
        reduced = self.attention.reduce(normed, grid, modality)
        keys, values, mask = *self.attention.keys_and_values(reduced), None
        if banks is not None:
            if self.training and torch.is_grad_enabled():
                num_class_tokens = 0 if self.include_class_token else tokens.shape[1] - math.prod(grid)
                banks[modality].update(reduced[:, num_class_tokens:])
            other = banks[OTHER[modality]]
            # A copy, as autograd keeps it and later updates change the bank in place.
            adapted_keys, adapted_values = self._adapt(other.prototypes.clone(), keys, values)
            mask = torch.cat([other.initialised.new_ones(keys.shape[1]), other.initialised])  # M + K
            keys = torch.cat([keys, adapted_keys], dim=1)  # B, M + K, C
            values = torch.cat([values, adapted_values], dim=1)
        tokens = tokens + self.attention(normed, keys, values, mask)
        return tokens + self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]

    def _adapt(self, prototypes: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, K, D) that the prototypes (K, D) of the other modality contribute."""
        adapted = prototypes.expand(len(keys), -1, -1)
        if self.warm_up is not None:
            adapted = self.warm_up(adapted, keys, values)
        if self.project_prototypes:
            return self.attention.keys_and_values(adapted)
        adapted = adapted.to(keys.dtype)
        return adapted, adapted
