import math

import pytest
import torch

from nnunet_ext.losses.relation import relation_matrix
from nnunet_ext.trainers.relation_monitor import RelationMonitor, has_just_collapsed
from nnunet_ext.utilities.relation_record import GENERAL, NON_TARGET, TARGET


def test_distances_are_means_over_the_epoch_and_rank_is_the_last() -> None:
    monitor = RelationMonitor()
    assert monitor.epoch_values() == {} and monitor.matrices() == {}
    identity, flipped = torch.eye(2), torch.eye(2).flip(0)  # rows differ by a squared norm of 2
    first = {NON_TARGET: identity, GENERAL: identity, TARGET: flipped}
    second = {NON_TARGET: flipped, GENERAL: identity, TARGET: flipped}
    monitor.update(first, torch.zeros(1, 2, 3))
    monitor.update(second, torch.eye(2).reshape(1, 2, 2, 1))
    values = monitor.epoch_values()
    assert values == pytest.approx({"relation/general": 1, "relation/target": 2, "relation/general_rank": 1})
    assert monitor.epoch_values() == {}, "every epoch starts anew"


def test_matrices_are_means_over_the_last_epoch() -> None:
    monitor, features = RelationMonitor(), torch.ones(1, 2, 3)
    steps = [torch.rand(2, 2, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    before = [matrix.clone() for matrix in steps]
    for matrix in steps[:2]:
        monitor.update({GENERAL: matrix, TARGET: 2 * matrix}, features)
    monitor.epoch_values()
    for matrix in steps[2:]:
        monitor.update({GENERAL: matrix, TARGET: 2 * matrix}, features)
    for _ in range(2):
        found = monitor.matrices()
        assert found.keys() == {GENERAL, TARGET}
        assert torch.allclose(torch.from_numpy(found[GENERAL]), sum(steps[2:]) / 3)
        assert torch.allclose(torch.from_numpy(found[TARGET]), 2 * sum(steps[2:]) / 3)
        monitor.epoch_values()  # they stay for the picture
    assert all(torch.equal(matrix, unchanged) for matrix, unchanged in zip(steps, before, strict=True))


def test_nothing_of_the_graph_is_kept_and_non_target_may_be_absent() -> None:
    monitor, features = RelationMonitor(), torch.randn(1, 3, 4, requires_grad=True)
    matrix = relation_matrix(features)
    monitor.update({GENERAL: matrix, TARGET: 2 * matrix}, features)
    assert not any(total.requires_grad for total in monitor._sums.values())
    assert monitor.epoch_values().keys() == {"relation/target", "relation/general_rank"}


@pytest.mark.parametrize(
    ("ranks", "collapsed"),
    [
        ([], False),
        ([0.01], False),
        ([0.8, 0.21], False),
        ([0.8, 0.19], True),
        ([0.8, 0.19, 0.18], False),
        ([0.8, 0.1, 0.5, 0.1], True),
        ([math.nan, 0.8, math.nan, 0.1], True),
    ],
)
def test_collapse_is_told_once(ranks: list[float], collapsed: bool) -> None:
    assert has_just_collapsed(ranks) is collapsed
