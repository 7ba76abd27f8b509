"""Places in an image, cell by cell."""

import math

import pytest
import torch

from nnunet_ext.architectures.tmc_position import sine_positions


@pytest.mark.parametrize("channels", [8, 12, 15])
def test_sines_of_the_centres(channels: int) -> None:
    positions = sine_positions((2, 3), (0.5, 0.25), channels)
    assert positions.shape == (6, channels)
    n = channels // 4
    waves = [4 / 2 ** (5 * k / (n - 1)) for k in range(n)]
    for row in range(2):
        for column in range(3):
            y, x = (row + 0.5) * 0.5, (column + 0.5) * 0.25
            expected = [f(2 * math.pi * place / w) for place in (y, x) for f in (math.sin, math.cos) for w in waves]
            expected += [0.0] * (channels % 4)
            assert positions[3 * row + column].tolist() == pytest.approx(expected, abs=1e-4)


def test_the_same_place_in_images_of_any_size() -> None:
    coarse, fine = sine_positions((1, 1), (1.0, 1.0), 8), sine_positions((3, 3), (1 / 3, 1 / 3), 8)
    torch.testing.assert_close(fine[4], coarse[0])
    assert len(torch.unique(fine, dim=0)) == 9


def test_fewer_than_four_channels_hold_no_place() -> None:
    assert not sine_positions((2, 2), (0.5, 0.5), 3).any()
