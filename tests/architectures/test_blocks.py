from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_ext.architectures.blocks import (
    Attention,
    ConvBlock,
    SpatialReduction,
    TransformerBlock,
    multi_head_attention,
    recompute,
    split_class_token,
    to_grid,
    to_tokens,
)


def naive_attention(q, k, v, heads):
    size = q.shape[-1] // heads
    parts = []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        weights = (q[..., part] @ k[..., part].transpose(1, 2) * size**-0.5).softmax(-1)
        parts.append(weights @ v[..., part])
    return torch.cat(parts, dim=-1)


def test_multi_head_attention_is_the_formula():
    q, k, v = torch.randn(2, 5, 12), torch.randn(2, 7, 12), torch.randn(2, 7, 12)
    torch.testing.assert_close(multi_head_attention(q, k, v, 3), naive_attention(q, k, v, 3))


def test_masked_keys_do_not_exist():
    q, k, v = torch.randn(2, 5, 12), torch.randn(2, 7, 12), torch.randn(2, 7, 12)
    mask = torch.tensor([True, True, False, True, False, False, True])
    expected = naive_attention(q, k[:, mask], v[:, mask], 3)
    torch.testing.assert_close(multi_head_attention(q, k, v, 3, mask), expected)


@pytest.mark.parametrize("grid", [(2, 3, 4), (3, 5)])
def test_tokens_are_the_voxels_in_row_major_order(grid):
    volume = torch.randn(2, 6, *grid)
    tokens = to_tokens(volume)
    assert tokens.is_contiguous()
    last = tuple(n - 1 for n in grid)
    torch.testing.assert_close(tokens[:, -1], volume[(slice(None), slice(None), *last)])
    torch.testing.assert_close(to_grid(tokens, grid), volume)


def test_class_token_bypasses_the_reduction():
    reduction = SpatialReduction(4, {"xray": (2, 3)})
    tokens = torch.randn(2, 1 + 24, 4)
    reduced = reduction(tokens, (4, 6), "xray")
    assert reduced.shape == (2, 1 + 4, 4)
    torch.testing.assert_close(reduced[:, 0], reduction.norm(tokens[:, 0]))
    # The first reduced token is the depthwise convolution of the first 2 x 3 tokens.
    window = tokens[:, 1:].view(2, 4, 6, 4)[:, :2, :3]
    conv = reduction.convs["xray"]
    expected = torch.einsum("bhwc,chw->bc", window, conv.weight[:, 0]) + conv.bias
    torch.testing.assert_close(reduced[:, 1], reduction.norm(expected), rtol=1e-4, atol=1e-4)


def test_transformer_block_is_the_formula():
    block = TransformerBlock(8, 2, ratios=None, mlp_ratio=2, norm_eps=1e-6)
    x = torch.randn(2, 6, 8)
    normed = nn.functional.layer_norm(x, (8,), eps=1e-6)
    attention: Attention = block.attention
    k, v = attention.key_value(normed).split(8, dim=-1)
    y = x + attention.projection(naive_attention(attention.query(normed), k, v, 2))
    y = y + block.mlp(nn.functional.layer_norm(y, (8,), eps=1e-6))
    torch.testing.assert_close(block(x, (2, 3), "xray"), y)


def test_split_class_token():
    tokens = torch.arange(14.0).view(1, 7, 2)
    class_token, voxels = split_class_token(tokens, (2, 3))
    assert class_token.tolist() == [[[0.0, 1.0]]] and voxels.shape == (1, 6, 2)
    class_token, voxels = split_class_token(tokens, (7,))
    assert class_token.shape == (1, 0, 2) and voxels.shape == (1, 7, 2)


@pytest.mark.parametrize("size", [5, 6])
def test_conv_block_rounds_up(size):
    assert ConvBlock(2, 3, (3, 3, 3), (1, 2, 2))(torch.randn(1, 2, 4, size, size)).shape == (1, 3, 4, 3, 3)


def test_recomputed_gradients_are_the_same():
    layer, x = ConvBlock(2, 3, (3, 3)), torch.randn(2, 2, 5, 5)
    gradients = []
    for enabled in (False, True):
        layer.zero_grad()
        recompute(layer, x, enabled=enabled).square().sum().backward()
        gradients.append(layer[0].weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_feature_map_size_counts_every_layer():
    block = TransformerBlock(8, 2, ratios={"ct": (2, 1, 2)}, mlp_ratio=2)
    counted = 0

    def count(module, inputs, output):
        nonlocal counted
        counted += output.numel()

    for module in block.modules():
        if isinstance(module, nn.Linear | nn.Conv3d):
            module.register_forward_hook(count)
    block(torch.randn(1, 4 * 3 * 2, 8), (4, 3, 2), "ct")
    assert block.compute_feature_map_size((4, 3, 2), "ct") == counted
