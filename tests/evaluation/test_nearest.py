from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_ext.evaluation import nearest
from nnunet_ext.evaluation.nearest import nearest_distances, offsets_by_length


def naive(points, others, scale):
    return [min(np.linalg.norm((p - o) * scale) for o in np.argwhere(others)) for p in np.argwhere(points)]


def distances(points, others, scale):
    return nearest_distances(np.flatnonzero(points), np.flatnonzero(others), points.shape, scale)


def random_grids(seed, shape, densities):
    generator = np.random.default_rng(seed)
    points, others = (generator.random(shape) < density for density in densities)
    others[tuple(generator.integers(0, shape))] = True
    return points, others


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(9,), (11, 8), (5, 6, 7), (1, 9, 4)]),
    densities=st.tuples(*[st.sampled_from([0.02, 0.2, 0.7])] * 2),
    scale=st.tuples(*[st.sampled_from([0.5, 1.0, 3.3, 10.0])] * 3),
)
def test_equals_the_least_of_all_distances(seed, shape, densities, scale):
    points, others = random_grids(seed, shape, densities)
    scale = np.array(scale[: len(shape)])
    assert distances(points, others, scale) == pytest.approx(naive(points, others, scale), abs=1e-12)


@pytest.mark.parametrize("looks", [0, 1, 10**6])
@pytest.mark.parametrize("chunk", [1, 50, 10**6])
def test_neither_search_alone_nor_both_change_the_result(monkeypatch, looks, chunk):
    points, others = random_grids(3, (12, 10, 14), (0.3, 0.01))
    scale = np.array([2.5, 1.0, 0.7])
    monkeypatch.setattr(nearest, "FIRST_LOOKS", looks)
    monkeypatch.setattr(nearest, "LOOKS_PER_HIT", looks)
    monkeypatch.setattr(nearest, "NUM_OFFSETS", 400)
    monkeypatch.setattr(nearest, "POINTS_AT_A_TIME", chunk)
    assert distances(points, others, scale) == pytest.approx(naive(points, others, scale), abs=1e-12)


def test_no_points():
    assert distances(np.zeros((3, 3), bool), np.ones((3, 3), bool), np.ones(2)).shape == (0,)


@pytest.mark.parametrize("scale", [(1.0, 1.0, 1.0), (5.0, 0.7, 0.7), (2.0, 0.5), (3.0,)])
def test_every_step_up_to_the_longest_is_there(scale):
    steps, lengths = offsets_by_length(np.array(scale))
    assert lengths[0] == 0 and (np.diff(lengths) >= 0).all()
    assert np.abs(len(steps) / nearest.NUM_OFFSETS - 1) < 0.15
    reach = [int(lengths[-1] // s) + 2 for s in scale]
    box = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach)), -1).reshape(-1, len(scale))
    assert np.count_nonzero(np.linalg.norm(box * scale, axis=1) <= lengths[-1]) == len(steps)
