"""Cross attention of TMC (Fig. 2): one modality asks, the other answers."""

from __future__ import annotations

from torch import Tensor, nn

from nnunet_ext.architectures.blocks import MLP, multi_head_attention

MLP_RATIO = 4


class CrossAttention(nn.Module):
    """``F = x + MLP(norm(x + MHCA(Q = norm(x), K = V = norm(context))))``, F = x before training.

    The paper has ``F = MLP(MHCA(x, context))``. The sum protects pre-trained weights: the last layer of the MLP starts
    at zero. Keys have no bias, which the softmax would cancel. Positions may be added to what queries and keys are made
    of: a Swin Transformer does not know where in the image it looks, and sentences speak of places.

    Args:
        width: channels of x, a multiple of `num_heads`.
        context_width: channels of the context.
        num_heads: attention heads.
    """

    def __init__(self, width: int, context_width: int, num_heads: int) -> None:
        super().__init__()
        self.width, self.num_heads = width, num_heads
        self.norm, self.context_norm = nn.LayerNorm(width), nn.LayerNorm(context_width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width, bias=False)
        self.value = nn.Linear(context_width, width)
        self.projection = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = MLP(width, MLP_RATIO)
        for parameter in self.mlp[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        *,
        mask: Tensor | None = None,
        position: Tensor | None = None,
        context_position: Tensor | None = None,
    ) -> Tensor:
        """x (B, N, width), context (B, M, context_width) -> (B, N, width).

        mask: (B, M) bool, True for the tokens of the context that count; None: all.
        position, context_position: (N, width) and (M, context_width), of x and context; None: they have none.
        """
        queries, context = self.norm(x), self.context_norm(context)
        attended = multi_head_attention(
            self.query(queries if position is None else queries + position),
            self.key(context if context_position is None else context + context_position),
            self.value(context),
            self.num_heads,
            None if mask is None else mask[:, None, None],
        )
        fused: Tensor = x + self.mlp(self.mlp_norm(x + self.projection(attended)))
        return fused

    def compute_feature_map_size(self, num_tokens: int, num_context_tokens: int) -> int:
        """Number of values in the outputs of the linear layers for one image."""
        return self.width * (num_tokens * (3 + MLP_RATIO) + num_context_tokens * 2)
