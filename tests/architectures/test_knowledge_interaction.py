from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from nnunet_ext.architectures.knowledge_interaction import KnowledgeBlock, PrototypeWarmUp
from nnunet_ext.architectures.prototypes import PrototypeBank

GRID, CHANNELS, HEADS = (2, 3), 8, 2


def attention(q, k, v):
    """Softmax attention of `HEADS` heads, written out."""
    size = CHANNELS // HEADS
    parts = []
    for h in range(HEADS):
        part = slice(h * size, (h + 1) * size)
        parts.append((q[..., part] @ k[..., part].transpose(1, 2) / size**0.5).softmax(-1) @ v[..., part])
    return torch.cat(parts, -1)


def norm(x):
    return F.layer_norm(x, (CHANNELS,), eps=1e-6)


def make(initialised=5, **options):
    torch.manual_seed(0)
    block = KnowledgeBlock(CHANNELS, HEADS, ratios=None, mlp_ratio=2, **options)
    for parameter in block.parameters():  # so that norms and biases matter
        torch.nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
    banks = {modality: PrototypeBank(5, CHANNELS) for modality in ("ct", "xray")}
    banks["xray"].prototypes.normal_()
    banks["xray"].initialised[:initialised] = True
    return block, banks


@pytest.mark.parametrize("initialised", [5, 3, 0])
@pytest.mark.parametrize("warm_up", [True, False])
@pytest.mark.parametrize("project", [True, False])
def test_interaction_is_the_formula(initialised, warm_up, project):
    block, banks = make(initialised, warm_up=warm_up, project_prototypes=project)
    block.eval()
    x = torch.randn(3, 6, CHANNELS)
    k, v = block.attention.key_value(norm(x)).split(CHANNELS, -1)
    prototypes = banks["xray"].prototypes.expand(3, -1, -1)
    if warm_up:
        prototypes = prototypes + block.warm_up.projection(attention(norm(prototypes), norm(k), norm(v)))
        prototypes = prototypes + block.warm_up.mlp(norm(prototypes))
    prototypes = prototypes[:, :initialised]
    own = block.attention.key_value(prototypes).split(CHANNELS, -1) if project else (prototypes, prototypes)
    k, v = torch.cat([k, own[0]], 1), torch.cat([v, own[1]], 1)
    y = x + block.attention.projection(attention(block.attention.query(norm(x)), k, v))
    y = y + block.mlp(norm(y))
    torch.testing.assert_close(block(x, GRID, "ct", banks), y, rtol=1e-4, atol=1e-5)


def test_uninitialised_bank_leaves_the_plain_block():
    block, banks = make(initialised=0)
    x = torch.randn(3, 6, CHANNELS)
    torch.testing.assert_close(block.eval()(x, GRID, "ct", banks), block(x, GRID, "ct"))


@pytest.mark.parametrize(("include_class_token", "num_tokens"), [(True, 14), (False, 12)])
def test_condensed_tokens_are_the_normed_ones(include_class_token, num_tokens):
    block, banks = make(include_class_token=include_class_token)
    banks["xray"] = PrototypeBank(num_tokens, CHANNELS, momentum=1.0, init="first")
    x = torch.randn(2, 7, CHANNELS)
    block(x, GRID, "xray", banks)
    tokens = norm(x) if include_class_token else norm(x)[:, 1:]
    torch.testing.assert_close(banks["xray"].prototypes, tokens.flatten(0, 1))


def test_only_training_with_gradients_updates_the_own_bank():
    block, banks = make()
    x = torch.randn(2, 6, CHANNELS)
    with torch.no_grad():
        block(x, GRID, "ct", banks)
    block.eval()(x, GRID, "ct", banks)
    assert not banks["ct"].initialised.any()
    before = banks["xray"].prototypes.clone()
    block.train()(x, GRID, "ct", banks)
    assert banks["ct"].initialised.all() and torch.equal(banks["xray"].prototypes, before)


def test_sigma_reduces_tokens_before_condensation_and_interaction():
    torch.manual_seed(0)
    block = KnowledgeBlock(CHANNELS, HEADS, ratios={"ct": (2, 3)}, mlp_ratio=2)
    banks = {modality: PrototypeBank(4, CHANNELS, init="first") for modality in ("ct", "xray")}
    out = block(torch.randn(1, 24, CHANNELS), (4, 6), "ct", banks)  # 24 tokens become 4
    assert out.shape == (1, 24, CHANNELS)
    assert banks["ct"].initialised.all() and banks["ct"].usage.sum() == 4


def test_warm_up_keeps_the_shape_of_the_prototypes():
    warm_up = PrototypeWarmUp(CHANNELS, HEADS, 2)
    assert warm_up(*(torch.randn(2, n, CHANNELS) for n in (5, 9, 9))).shape == (2, 5, CHANNELS)
