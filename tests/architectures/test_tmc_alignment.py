"""Cosine maps against the formula, pixel by pixel."""

import torch
from torch import nn

from nnunet_ext.architectures.tmc_alignment import StageAlignment


def test_cosine_of_sentence_and_cell() -> None:
    torch.manual_seed(0)
    module, vision, class_token = StageAlignment(6, 5, 4), torch.randn(2, 3, 4, 6), torch.randn(2, 5)
    cosine, pooled, text = module(vision, class_token, (2, 3))
    assert cosine.shape == (2, 2, 3)
    z_v, z_l = module.vision(vision), module.text(class_token)
    for b in range(2):
        for i in range(2):
            for j in range(3):
                expected = z_v[b, i, j] @ z_l[b] / (z_v[b, i, j].norm() * z_l[b].norm())
                torch.testing.assert_close(cosine[b, i, j], expected)
        torch.testing.assert_close(pooled[b], z_v[b, :2, :3].reshape(6, 4).mean(0))
    torch.testing.assert_close(text, z_l)


def test_half_precision_comes_in_and_fp32_goes_out() -> None:
    module = StageAlignment(6, 5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = module(torch.randn(2, 3, 4, 6).bfloat16(), torch.randn(2, 5).bfloat16(), (3, 4))
    assert {o.dtype for o in outputs} == {torch.float32}


def test_features_of_zero_have_a_finite_gradient() -> None:
    module = StageAlignment(6, 5, 4)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    module(torch.randn(2, 3, 4, 6), torch.randn(2, 5), (3, 4))[0].sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
