"""Distance from each point of one grid to the nearest point of another, exactly and without a distance map.

Most surface elements of a fair prediction lie within a few voxels of the reference's: those are found by looking at the
grid places around them, nearest first. What is farther away is left to a k-d tree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Places = NDArray[np.int64]
Array = NDArray[np.float64]

NUM_OFFSETS = 2000
"""Grid places in the ball around a point that is searched place by place."""
LOOKS_PER_HIT, FIRST_LOOKS = 64, 8
"""A query of the tree costs about as much as 64 looks at the grid: the search goes on while it spares more than it
costs, and at first for 8 looks per point."""
POINTS_AT_A_TIME = 2**17
"""Few enough that the search's working memory stays in the cache."""


class Offsets(NamedTuple):
    """Steps on the grid (M, d) and their lengths in mm (M,), shortest first: every step that is not longer than the
    last one is among them."""

    steps: Places
    lengths: Array


def offsets_by_length(scale: Array) -> Offsets:
    """About `NUM_OFFSETS` offsets on a grid of `scale` mm, the zero offset first."""
    dimensions = len(scale)
    unit_ball = math.pi ** (dimensions / 2) / math.gamma(dimensions / 2 + 1)
    radius = (NUM_OFFSETS * float(np.prod(scale)) / unit_ball) ** (1 / dimensions)
    reach = np.floor(radius / scale).astype(int)
    steps = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), -1).reshape(-1, dimensions)
    lengths = np.linalg.norm(steps * scale, axis=1)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] <= radius]
    return Offsets(steps[order], lengths[order])


def nearest_distances(points: Places, others: Places, shape: Sequence[int], scale: Array) -> Array:
    """Distances in mm (N,) from the points of a grid to the nearest of others on the same grid.

    Args:
        points: (N,) places on the grid, counted in C order (`numpy.ravel_multi_index`).
        others: (M,) likewise, M > 0.
        shape: of the grid, any number of axes.
        scale: mm per step along each axis.
    """
    near = NearSearch(others, shape, scale)
    distances = np.empty(len(points))
    for start in range(0, len(points), POINTS_AT_A_TIME):
        chosen = slice(start, start + POINTS_AT_A_TIME)
        near.fill(distances[chosen], points[chosen])
    far = np.isnan(distances)
    if far.any():
        del near  # its grid makes room for the tree
        tree = cKDTree(_indices(others, shape) * scale, leafsize=48, balanced_tree=False, compact_nodes=False)
        distances[far] = tree.query(_indices(points[far], shape) * scale)[0]
    return distances


def _indices(places: Places, shape: Sequence[int]) -> Places:
    """(N,) places -> (N, d) indices."""
    return np.stack(np.unravel_index(places, tuple(shape)), axis=-1)


class NearSearch:
    """Looks for the nearest of `others` around a point, place by place."""

    def __init__(self, others: Places, shape: Sequence[int], scale: Array) -> None:
        steps, self.lengths = offsets_by_length(scale)
        self.shape, self.margin = tuple(shape), np.abs(steps).max(axis=0)  # around the grid: no step leaves it
        grid = np.zeros(np.array(shape) + 2 * self.margin, dtype=bool)
        inner = tuple(slice(margin, margin + length) for margin, length in zip(self.margin, shape, strict=True))
        occupied = np.zeros(math.prod(shape), dtype=bool)
        occupied[others] = True
        grid[inner] = occupied.reshape(self.shape)
        self.grid, self.strides = grid.ravel(), np.array(grid.strides)  # of booleans: bytes are elements
        self.steps = steps @ self.strides

    def fill(self, distances: Array, points: Places) -> None:
        """Write the distances (N,) of `points`; nan where the search was given up."""
        distances.fill(np.nan)
        places = (_indices(points, self.shape) + self.margin) @ self.strides
        unsolved = np.arange(len(places))
        budget = FIRST_LOOKS * len(places)
        for step, length in zip(self.steps, self.lengths, strict=True):
            if budget < len(places) or not len(places):
                return
            hit = self.grid[places + step]
            distances[unsolved[hit]] = length
            budget += LOOKS_PER_HIT * np.count_nonzero(hit) - len(places)
            unsolved, places = unsolved[~hit], places[~hit]
