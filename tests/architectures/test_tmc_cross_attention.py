"""Cross attention (Fig. 2) against its formula, head by head."""

import pytest
import torch
from torch import Tensor, nn

from nnunet_ext.architectures.tmc_cross_attention import CrossAttention

HEADS, WIDTH, CONTEXT = 2, 8, 6


def opened() -> CrossAttention:
    torch.manual_seed(0)
    attention = CrossAttention(WIDTH, CONTEXT, HEADS)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    return attention


def naive(module: CrossAttention, x: Tensor, context: Tensor, p: Tensor | float = 0, r: Tensor | float = 0) -> Tensor:
    """For one image: (N, C), (M, D) -> (N, C), with the positions p of x and r of the context."""
    context = module.context_norm(context)
    q, k, v = module.query(module.norm(x) + p), module.key(context + r), module.value(context)
    d_k = WIDTH // HEADS
    heads = [
        torch.softmax(q[:, c] @ k[:, c].T / d_k**0.5, dim=1) @ v[:, c]
        for c in (slice(h * d_k, (h + 1) * d_k) for h in range(HEADS))
    ]
    attended = module.projection(torch.cat(heads, 1))
    return x + module.mlp(module.mlp_norm(x + attended))


def test_formula_with_words_left_out() -> None:
    module, x, context = opened(), torch.randn(2, 5, WIDTH), torch.randn(2, 4, CONTEXT)
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    fused = module(x, context, mask=mask)
    for i, length in enumerate((4, 2)):
        torch.testing.assert_close(fused[i], naive(module, x[i], context[i, :length]))
    torch.testing.assert_close(module(x, context)[1], naive(module, x[1], context[1]))


@pytest.mark.parametrize("autocast", [False, True])
def test_before_training_it_is_the_identity(autocast: bool) -> None:
    module, x = CrossAttention(WIDTH, CONTEXT, HEADS), torch.randn(2, 5, WIDTH)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert torch.equal(module(x, torch.randn(2, 4, CONTEXT)), x)


def test_formula_with_positions() -> None:
    module, x, context = opened(), torch.randn(2, 5, WIDTH), torch.randn(2, 4, CONTEXT)
    places, context_places = torch.randn(5, WIDTH), torch.randn(4, CONTEXT)
    fused = module(x, context, position=places, context_position=context_places)
    for i in range(2):
        torch.testing.assert_close(fused[i], naive(module, x[i], context[i], places, context_places))
