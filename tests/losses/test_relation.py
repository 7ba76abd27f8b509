import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_ext.losses.relation import (
    BATCH_RELATIONS,
    effective_rank,
    general_relation_loss,
    relation_distance,
    relation_matrix,
    target_relation_loss,
)

seeds = st.integers(0, 2**16)


def features(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_rows(gram: list[list[float]]) -> list[list[float]]:
    """Eq. 2."""
    return [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in gram]


def naive_gram(maps: list[list[float]]) -> list[list[float]]:
    """Eq. 1: inner products of the vectorised activation maps."""
    return [[sum(a * b for a, b in zip(m, n, strict=True)) for n in maps] for m in maps]


def test_relation_matrix_is_the_papers() -> None:
    x = features(0, 2, 3, 2, 2)
    first, second = x.flatten(2).tolist()
    mean = [[(a + b) / 2 for a, b in zip(m, n, strict=True)] for m, n in zip(first, second, strict=True)]
    assert torch.allclose(relation_matrix(x), torch.tensor(naive_rows(naive_gram(mean)), dtype=torch.float64))

    grams = zip(naive_gram(first), naive_gram(second), strict=True)
    gram = [[(a + b) / 2 for a, b in zip(m, n, strict=True)] for m, n in grams]
    per_sample = relation_matrix(x, "per_sample")
    assert torch.allclose(per_sample, torch.tensor(naive_rows(gram), dtype=torch.float64))
    assert not torch.allclose(per_sample, relation_matrix(x), atol=1e-2)


def test_losses_are_the_papers_with_every_reduction() -> None:
    a, b = relation_matrix(features(1, 1, 4, 5)), relation_matrix(features(2, 1, 4, 5))
    naive = sum((a[m, n].item() - b[m, n].item()) ** 2 for m in range(4) for n in range(4))
    for reduction, divisor in (("sum", 1), ("sum_per_row", 4), ("mean", 16)):
        assert general_relation_loss(a, b, reduction).item() == pytest.approx(naive / divisor)
        assert target_relation_loss(a, b, reduction).item() == pytest.approx(-naive / divisor)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_under_autocast(dtype: torch.dtype) -> None:
    # A level of 64 channels and 6,720 positions: its Gram matrix overflows in fp16.
    a, b = ((3 * features(seed, 2, 64, 6720) + 2).to(dtype) for seed in (3, 4))
    with torch.autocast("cpu", dtype):
        first, second = relation_matrix(a), relation_matrix(b)
        losses = general_relation_loss(first, second), target_relation_loss(first, second)
    assert first.dtype == torch.float32 and losses[0].dtype == torch.float32
    exact = relation_distance(relation_matrix(a.double()), relation_matrix(b.double())).item()
    assert losses[0].item() == pytest.approx(exact, rel=1e-3) and losses[1] == -losses[0]


def test_dead_channels_and_their_gradient() -> None:
    x = features(5, 2, 4, 6).float()
    x[:, 1] = 0
    x.requires_grad_()
    matrix = relation_matrix(x)
    assert matrix[1].abs().sum() == 0 == matrix[:, 1].abs().sum()
    relation_distance(matrix, relation_matrix(features(6, 2, 4, 6).float())).backward()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad.abs().sum() > 0
    assert relation_matrix(torch.zeros(1, 3, 2)).abs().sum() == 0


def test_gradients() -> None:
    other = relation_matrix(features(7, 1, 3, 4))
    x = features(8, 2, 3, 4).requires_grad_()
    for batch in BATCH_RELATIONS:
        assert torch.autograd.gradcheck(lambda x, b=batch: target_relation_loss(other, relation_matrix(x, b)), x)


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from(BATCH_RELATIONS), st.integers(1, 4), st.integers(1, 5))
def test_rows_are_unit_vectors_whatever_the_order_of_the_batch(seed: int, batch: str, size: int, channels: int) -> None:
    x = features(seed, size, channels, 7)
    matrix = relation_matrix(x, batch)
    assert torch.allclose(matrix.norm(dim=1), torch.ones(channels, dtype=torch.float64))
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(relation_matrix(x[order], batch), matrix)


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from(BATCH_RELATIONS), st.floats(0.01, 100))
def test_scale_of_the_features_does_not_matter(seed: int, batch: str, scale: float) -> None:
    x = features(seed, 2, 4, 9)
    assert torch.allclose(relation_matrix(scale * x, batch), relation_matrix(x, batch))


@settings(max_examples=25, deadline=None)
@given(seeds, seeds, st.integers(1, 6))
def test_distance_is_bounded(first: int, second: int, channels: int) -> None:
    a, b = relation_matrix(features(first, 1, channels, 3)), relation_matrix(features(second, 1, channels, 3))
    assert 0 <= relation_distance(a, b) <= 4 + 1e-9
    assert relation_distance(a, a) == 0


def test_effective_rank() -> None:
    assert effective_rank(torch.eye(5)[None]) == pytest.approx(5)
    assert effective_rank(torch.arange(1.0, 4).reshape(1, 3, 1, 1).expand(2, 3, 4, 4)) == pytest.approx(1)
    assert effective_rank(torch.zeros(1, 3, 4)) == 0
    # Singular values 3 and 1: shares 3/4 and 1/4.
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))[None]) == pytest.approx(expected)
    assert effective_rank(torch.randn(2, 3, 4, requires_grad=True)).requires_grad is False


def test_unknown_options() -> None:
    with pytest.raises(ValueError, match="batch='last'"):
        relation_matrix(torch.zeros(1, 2, 3), "last")
    with pytest.raises(ValueError, match="reduction='max'"):
        relation_distance(torch.eye(2), torch.eye(2), "max")
