"""Vision stages against timm's own Swin Transformer."""

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from nnunet_ext.architectures.tmc_swin import STRIDES, SwinStages
from nnunet_ext.architectures.tmc_weights import load_swin_weights

SIZES = {"depths": (2, 2, 2, 2), "num_heads": (1, 1, 2, 2)}


def stages(channels: int = 3, window: int = 2) -> SwinStages:
    torch.manual_seed(0)
    return SwinStages(channels, width=8, depths=SIZES["depths"], heads=SIZES["num_heads"], window=window)


def run(swin: SwinStages, x: Tensor) -> list[Tensor]:
    outputs = []
    for stage in range(4):
        x = swin(stage, x)
        outputs.append(x)
    return outputs


@pytest.mark.parametrize("size", [(64, 64), (128, 96)])
def test_the_stages_are_timms(size: tuple[int, int]) -> None:
    """At 64 x 64 the last stage is one window, whose second block must not be shifted."""
    torch.manual_seed(1)
    timms = SwinTransformer(size, embed_dim=8, window_size=2, num_classes=0, **SIZES).eval()
    swin = stages().eval()
    report = load_swin_weights(swin, timms.state_dict())
    assert report.left == report.adapted == [] and report.skipped == ["norm.weight", "norm.bias"]
    x = torch.randn(2, 3, *size)
    expected = timms.forward_intermediates(x, intermediates_only=True)
    for ours, theirs in zip(run(swin, x), expected, strict=True):
        torch.testing.assert_close(ours.permute(0, 3, 1, 2), theirs, atol=1e-5, rtol=1e-4)


def test_sizes_may_change_from_call_to_call() -> None:
    swin = stages(window=4).eval()
    large, small = torch.randn(2, 3, 96, 160), torch.randn(2, 3, 32, 64)
    first = run(swin, small)
    assert [tuple(v.shape) for v in run(swin, large)] == [
        (2, 96 // s, 160 // s, w) for s, w in zip(STRIDES, (8, 16, 32, 64), strict=True)
    ]
    assert all(torch.equal(a, b) for a, b in zip(first, run(swin, small), strict=True))
