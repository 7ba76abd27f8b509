"""Alignment losses against their formulas, written out cell by cell and pair by pair."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nnunet_ext.losses.alignment import (
    alignment_loss,
    cell_mean,
    literal_alignment,
    pixel_alignment,
    scale,
    siglip_alignment,
)

LOG_SCALE, BIAS = torch.tensor(math.log(5.0)), torch.tensor(-0.5)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mask(*shape: int, seed: int = 1) -> Tensor:
    return (random(*shape, seed=seed) > 0).float()


@pytest.mark.parametrize("ignoring", [False, True])
def test_sentence_against_pixels(ignoring: bool) -> None:
    """A map of cells of 4 pixels; those at the right and lower edge are cut."""
    cosine, target = random(2, 3, 2), mask(2, 1, 10, 7)
    valid = mask(2, 1, 10, 7, seed=2) if ignoring else torch.ones_like(target)
    valid[0, 0, :4, :4] = 0 if ignoring else 1
    losses, weights = [], []
    for b in range(2):
        for i in range(3):
            for j in range(2):
                cell = target[b, 0, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].flatten().tolist()
                counts = valid[b, 0, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].flatten().tolist()
                if not sum(counts):
                    continue
                y = sum(t * c for t, c in zip(cell, counts, strict=True)) / sum(counts)
                p = sigmoid(5 * cosine[b, i, j].item() - 0.5)
                losses.append(-y * math.log(p) - (1 - y) * math.log(1 - p))
                weights.append(sum(counts) / len(counts))
    expected = sum(w * v for w, v in zip(weights, losses, strict=True)) / sum(weights)
    loss = pixel_alignment(cosine, target, LOG_SCALE, BIAS, stride=4, valid=valid if ignoring else None)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_no_valid_pixel_gives_zero() -> None:
    cosine = random(2, 3, 2).requires_grad_()
    loss = pixel_alignment(cosine, mask(2, 1, 10, 7), LOG_SCALE, BIAS, stride=4, valid=torch.zeros(2, 1, 10, 7))
    loss.backward()
    assert loss == 0 and not cosine.grad.any()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([4, 8, 16, 32]))
def test_cells_average_what_they_cover(height: int, width: int, stride: int) -> None:
    cells = cell_mean(mask(1, 1, height, width), stride)
    assert cells.shape == (1, 1, math.ceil(height / stride), math.ceil(width / stride))
    last = mask(1, 1, height, width)[..., (cells.shape[2] - 1) * stride :, (cells.shape[3] - 1) * stride :]
    assert cells[0, 0, -1, -1].item() == pytest.approx(last.mean().item(), abs=1e-6)


def test_sentences_against_the_images_of_the_batch() -> None:
    """Images 0 and 2 have the same sentence: neither is a negative of the other."""
    vision, text = random(3, 4), random(3, 4, seed=3)
    tokens = torch.tensor([[2, 5, 3], [2, 6, 3], [2, 5, 3]])
    total = 0.0
    for i in range(3):
        for j in range(3):
            cosine = (vision[i] @ text[j] / vision[i].norm() / text[j].norm()).item()
            z = 1 if i == j or {i, j} == {0, 2} else -1
            total += math.log(sigmoid(z * (5 * cosine - 0.5)))
    assert siglip_alignment(vision, text, tokens, LOG_SCALE, BIAS).item() == pytest.approx(-total / 3, rel=1e-5)
    all_alike = siglip_alignment(vision, text, tokens[:1], LOG_SCALE, BIAS)
    assert torch.equal(all_alike, siglip_alignment(vision, text, tokens[:1].repeat(3, 1), LOG_SCALE, BIAS))


def test_the_printed_formula() -> None:
    vision, text = random(3, 4), random(3, 4, seed=3)
    total = 0.0
    for v, t in zip(vision, text, strict=True):
        similarity = (v @ t / v.norm() / t.norm()).item() / 0.2
        total += -math.log(sigmoid(similarity)) - math.log(1 - sigmoid(similarity))
    assert literal_alignment(vision, text, LOG_SCALE).item() == pytest.approx(total / 3, rel=1e-5)


def test_the_printed_formula_wants_text_and_image_orthogonal() -> None:
    text = torch.eye(2)
    orthogonal, alike, opposite = (literal_alignment(v, text, LOG_SCALE) for v in (text.flip(0), text, -text))
    assert orthogonal.item() == pytest.approx(2 * math.log(2))
    assert alike.item() == pytest.approx(opposite.item()) and alike > orthogonal


def test_the_scale_is_bounded() -> None:
    values = torch.tensor([0.0, math.log(100), 10.0], requires_grad=True)
    assert scale(values).tolist() == pytest.approx([1, 100, 100])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fp32_inside(dtype: torch.dtype) -> None:
    vision, text, tokens = random(3, 4).to(dtype), random(3, 4, seed=3).to(dtype), torch.tensor([[2], [5], [6]])
    cosine, target = random(2, 3, 2).to(dtype), mask(2, 1, 10, 7)
    losses = []
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            losses.append(
                torch.stack(
                    [
                        pixel_alignment(cosine, target, LOG_SCALE, BIAS, stride=4),
                        siglip_alignment(vision, text, tokens, LOG_SCALE, BIAS),
                        literal_alignment(vision, text, LOG_SCALE),
                    ]
                )
            )
    assert losses[0].dtype == torch.float32 and torch.equal(*losses)


def stages() -> dict:
    return {
        "maps": [random(2, 4, 4), random(2, 2, 2)],
        "pooled_vision": [random(2, 4, seed=i) for i in (4, 5)],
        "text": [random(2, 4, seed=i) for i in (6, 7)],
        "tokens": torch.tensor([[2, 5], [2, 6]]),
        "target": mask(2, 1, 16, 16),
        "log_scales": torch.tensor([1.0, 2.0]),
        "biases": torch.tensor([0.1, 0.2]),
        "strides": (4, 8),
    }


@pytest.mark.parametrize("mode", ["pixel", "siglip", "literal"])
def test_mean_over_stages(mode: str) -> None:
    s = stages()
    terms = []
    for i in range(2):
        scalars = (s["log_scales"][i], s["biases"][i])
        terms.append(
            {
                "pixel": lambda i=i, c=scalars: pixel_alignment(s["maps"][i], s["target"], *c, stride=s["strides"][i]),
                "siglip": lambda i=i, c=scalars: siglip_alignment(s["pooled_vision"][i], s["text"][i], s["tokens"], *c),
                "literal": lambda i=i, c=scalars: literal_alignment(s["pooled_vision"][i], s["text"][i], c[0]),
            }[mode]()
        )
    assert alignment_loss(mode, **s).item() == pytest.approx(sum(t.item() for t in terms) / 2)


def test_modes_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="mode='none' .*is not an alignment"):
        alignment_loss("none", **stages())
    with pytest.raises(ValueError, match="mode='pixel' with biases=None"):
        alignment_loss("pixel", **{**stages(), "biases": None})
    assert alignment_loss("literal", **{**stages(), "biases": None}).isfinite()
