"""Boolean masks to measure."""

import numpy as np

SPACING = (5.0, 2.0, 0.5)  # z, y, x


def voxels(*positions, shape=(4, 6, 8)):
    """True at these positions only."""
    mask = np.zeros(shape, dtype=bool)
    for position in positions:
        mask[position] = True
    return mask


def random_pair(seed, shape=(6, 9, 11), density=0.15):
    """Two independent masks of scattered voxels."""
    generator = np.random.default_rng(seed)
    return generator.random(shape) < density, generator.random(shape) < density
