"""The layout for CPUs changes where numbers lie in memory, not the numbers."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toy_unet import unet

from nnunet_ext.architectures.cpu_layout import (
    ChannelwiseNorm,
    channels_last,
    use_channelwise_norms,
    weights_channels_last,
)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(2, 6), st.integers(1, 6)),
    seed=st.integers(0, 99),
)
def test_norm_is_that_of_its_formula(shape: tuple[int, ...], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    host = nn.InstanceNorm3d(shape[1], eps=1e-3, affine=True).double()
    with torch.no_grad():
        host.weight.normal_(generator=generator)
        host.bias.normal_(generator=generator)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    centred = x - x.mean((2, 3, 4), keepdim=True)
    normalised = centred / (centred.square().mean((2, 3, 4), keepdim=True) + 1e-3).sqrt()
    expected = normalised * host.weight.view(-1, 1, 1, 1) + host.bias.view(-1, 1, 1, 1)
    norm = ChannelwiseNorm(host)
    assert torch.allclose(norm(x), expected)
    assert torch.allclose(norm(channels_last(x)), expected)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("residual", [False, True])
def test_same_weights_names_values_and_gradients_as_the_hosts_network(dimensions: int, residual: bool) -> None:
    host = unet(dimensions, residual).double()
    ours = copy.deepcopy(host)
    use_channelwise_norms(ours)
    weights_channels_last(ours)
    assert not any(isinstance(m, nn.InstanceNorm2d | nn.InstanceNorm3d) for m in ours.modules())
    ours.load_state_dict(host.state_dict())
    x = torch.randn(2, 1, *[16] * dimensions, dtype=torch.float64)
    for expected, logits in zip(host(x), ours(channels_last(x)), strict=True):
        assert torch.allclose(logits, expected)
        expected.square().mean().backward(retain_graph=True)
        logits.square().mean().backward(retain_graph=True)
    for (name, p), (other, q) in zip(host.named_parameters(), ours.named_parameters(), strict=True):
        assert name == other
        assert torch.allclose(p.grad, q.grad, atol=1e-12), name


@pytest.mark.parametrize("shape", [(2, 1, 4, 5), (1, 3, 4, 5), (2, 1, 4, 5, 6), (1, 3, 4, 5, 6)])
def test_copy_has_channels_last_even_if_there_is_one(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    copied = channels_last(x)
    assert torch.equal(copied, x)
    assert copied.data_ptr() != x.data_ptr()
    assert copied.stride(1) == 1


def test_other_norms_stay() -> None:
    tracking = nn.InstanceNorm2d(3, affine=True, track_running_stats=True)
    kept = nn.Sequential(nn.BatchNorm2d(3), nn.InstanceNorm2d(3), tracking)
    use_channelwise_norms(kept)
    assert [type(module) for module in kept] == [nn.BatchNorm2d, nn.InstanceNorm2d, nn.InstanceNorm2d]
