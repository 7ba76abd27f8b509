"""The double U: convolutions of enlarged features, positions on any grid, and who hears what."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_ext.architectures.tmc_double_u import POSITION_GRID, DoubleU, UpConvs, convolve_doubled

FEATURE_WIDTHS = (4, 8, 16, 32)


def double_u(depth: int = 1) -> DoubleU:
    torch.manual_seed(0)
    return DoubleU(1, 2, width=8, feature_widths=FEATURE_WIDTHS, token_depth=depth)


def features(size: tuple[int, int] = (32, 64)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(2, size[0] // (4 * 2**i), size[1] // (4 * 2**i), c, generator=generator)
        for i, c in enumerate(FEATURE_WIDTHS)
    ]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4)])
def test_convolution_of_a_doubled_image(size: tuple[int, int]) -> None:
    x, weight = torch.randn(2, 3, *size, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0), weight, padding=1)
    ours = convolve_doubled(x, weight)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    against = torch.randn_like(expected)
    for a, b in zip(*(torch.autograd.grad(y, (x, weight), against) for y in (ours, expected)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_up_convolutions_are_those_of_the_concatenation() -> None:
    module = UpConvs(8, 4)
    x, skip = torch.randn(2, 8, 3, 4), torch.randn(2, 8, 6, 8)
    expected = module.second(module.first(torch.cat([F.interpolate(x, scale_factor=2.0), skip], 1)))
    torch.testing.assert_close(module(x, skip), expected, atol=1e-4, rtol=1e-4)


def test_the_first_level_adds_a_position_that_fits_any_grid() -> None:
    level = double_u().down_tokens[0]
    assert level.position.shape == (1, 8, *POSITION_GRID)
    joined = torch.zeros(2, 16, 14 * 16, 14 * 16)
    seen: list[Tensor] = []
    level.blocks.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    level(joined, None)
    tokens = level.patches.bias[:, None] + level.position[0].flatten(1)
    torch.testing.assert_close(seen[0][0], tokens.T)
    level(joined[..., :32, :64], None)
    assert seen[1].shape == (2, 8, 8)
    torch.testing.assert_close(
        seen[1][0, 0] - level.patches.bias, F.interpolate(level.position, (2, 4), mode="bilinear")[0, :, 0, 0]
    )


@pytest.mark.parametrize("stage", range(4))
def test_every_stage_is_heard(stage: int) -> None:
    module, given = double_u().eval(), features()
    image = torch.randn(2, 1, 32, 64)
    logits = module(image, given)
    assert logits.shape == (2, 2, 32, 64)
    given[stage] = given[stage].flip(1, 2)
    assert not torch.allclose(module(image, given), logits, atol=1e-4)


def test_depth_of_the_token_path() -> None:
    module = double_u(depth=2)
    assert [len(level.blocks) for level in (*module.down_tokens, *module.up_tokens)] == [2] * 8
    assert module(torch.randn(2, 1, 32, 32), features((32, 32))).shape == (2, 2, 32, 32)
