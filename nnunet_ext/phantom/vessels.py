"""Blood vessels of the lungs: two trees of tubes that fork towards the chest wall."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROOT_RADIUS = 0.045
STEP = 0.02
Floats = NDArray[np.float64]


def vessel_tree(rng: np.random.Generator, generations: int = 7) -> tuple[Floats, Floats]:
    """Points on the centre lines of the vessels of both lungs and the radius of the tube at each.

    Returns: points (N, 3), in fractions of half the field of view, and radii (N,), in the same unit.
    """
    points, radii = [], []
    for side in (-1.0, 1.0):
        start = np.array([[-0.02, 0.05, 0.15 * side]] * 5)
        direction = np.array([[0.9, 0, 0.4], [-0.9, 0.2, 0.4], [-0.5, -0.5, 0.6], [0.4, -0.5, 0.6], [-0.3, 0.6, 0.7]])
        direction = _unit(direction * (1, 1, side) + rng.normal(0, 0.15, (5, 3)))
        radius = np.full(len(start), ROOT_RADIUS * 0.8)
        length = 0.20
        for _ in range(generations):
            steps = np.linspace(0, 1, max(2, int(length / STEP)))[:, None, None]
            end = start + direction * length * rng.uniform(0.7, 1.3, (len(start), 1))
            bend = 0.15 * length * _unit(rng.normal(size=start.shape)) * np.sin(np.pi * steps)
            line = start + (end - start) * steps + bend
            points.append(line.reshape(-1, 3))
            radii.append(np.broadcast_to(radius * (1 - 0.2 * steps[..., 0]), line.shape[:2]).ravel())
            # Two children per tube, spread about their parent.
            start, radius, length = np.repeat(end, 2, 0), np.repeat(radius, 2) * 0.72, length * 0.82
            direction = _unit(np.repeat(direction, 2, 0) + rng.normal(0, 0.45, start.shape))
    return np.concatenate(points), np.concatenate(radii)


def coverage(points: Floats, radii: Floats, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Share of each voxel that tubes fill (0..1), for points and radii as `vessel_tree` gives them."""
    size = np.array(shape)
    voxel = (points + 1) * size / 2 - 0.5
    radius = radii * shape[-1] / 2
    inside = np.all((voxel > -1) & (voxel < size), axis=1)
    voxel, radius = voxel[inside], radius[inside]
    filled = np.zeros(shape, np.float32)
    # Thin tubes touch their own voxel and its neighbours; only the thick ones need a wide brush.
    for low, high in ((0.0, 1.0), (1.0, np.inf)):
        chosen = (radius > low) & (radius <= high)
        if not chosen.any():
            continue
        reach = int(np.ceil(radius[chosen].max()))
        centre, r = np.round(voxel[chosen]).astype(int), radius[chosen][:, None]
        brush = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), -1).reshape(1, -1, 3)
        index = centre[:, None] + brush
        distance = np.linalg.norm(index - voxel[chosen][:, None], axis=-1)
        # A tube thinner than a voxel fills only its cross-section of it.
        share = np.clip(r - distance + 0.5, 0, 1) * np.minimum(1, 2 * r)
        keep = (share > 0) & np.all((index >= 0) & (index < size), axis=-1)
        np.maximum.at(filled, tuple(index[keep].T), share[keep].astype(np.float32))
    return filled


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit
