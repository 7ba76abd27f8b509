"""Lesions of the lungs: where they are and how dense.

Each function draws one finding for given lungs and returns ``(weight, density)``: weight in [0, 1] is the share of the
lesion in each voxel, density its Hounsfield units. Weights are 0 outside the lungs. The mask of a
finding is ``weight > MASK_THRESHOLD``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_ext.phantom.anatomy import Array, Coordinates, ellipsoid

MASK_THRESHOLD = 0.35
Lesion = tuple[Array, float]
Draw = Callable[[np.random.Generator, Coordinates, NDArray[np.bool_]], list[Lesion]]


def covid(rng: np.random.Generator, position: Coordinates, lungs: NDArray[np.bool_]) -> list[Lesion]:
    """Three to six fuzzy ground-glass blobs under the pleura, in both lungs, more often low and at the back."""
    z, y, x = position
    right = rng.random() < 0.5
    depth = ndimage.distance_transform_edt(lungs, sampling=[2 / n for n in lungs.shape]).astype(np.float32)
    preferred = np.where(lungs & (np.abs(x) > 0.25), np.exp(2 * y - z - depth / 0.04), 0)
    # One field of noise serves all blobs: they lie in different places.
    shrink = 1.6 * depth + 0.22 * _cloud(rng, lungs.shape, 0.10)
    texture = np.where(lungs, 1 - 0.15 * np.clip(_cloud(rng, lungs.shape, 0.04), -1, 1) ** 2, 0)
    lesions: list[Lesion] = []
    for number in range(rng.integers(3, 7)):
        centre = _choose(rng, position, np.where((x < 0) == (right == (number % 2 == 0)), preferred, 0))
        radii = tuple(rng.uniform(0.15, 0.34) * rng.uniform(0.8, 1.25, 3))
        lesions.append((texture * _fuzzy(ellipsoid(position, centre, radii) + shrink, 0.25), rng.uniform(-420, -100)))
    return lesions


def consolidation(rng: np.random.Generator, position: Coordinates, lungs: NDArray[np.bool_]) -> list[Lesion]:
    """One airless lobe: the part of one lung on one side of an oblique fissure, denser towards its centre."""
    z, y, x = position
    side = float(rng.choice((-1.0, 1.0)))
    lower = 1.0 if rng.random() < 0.65 else -1.0
    fissure = lower * (0.9 * y - 0.75 * z + rng.uniform(-0.2, 0.0))
    lobe = lungs & (x * side > 0) & (fissure > 0)
    if not lobe.any():
        return []
    centre = tuple(float(axis[lobe].mean()) for axis in position)
    radii = tuple(rng.uniform(0.38, 0.55) * rng.uniform(0.85, 1.15, 3))
    weight = _fuzzy(ellipsoid(position, centre, radii) + 0.15 * _cloud(rng, lungs.shape, 0.08), 0.25)
    return [(np.where(lobe, weight, 0).astype(np.float32), rng.uniform(-80, 20))]


def tumour(rng: np.random.Generator, position: Coordinates, lungs: NDArray[np.bool_]) -> list[Lesion]:
    """One solid nodule with a ragged but sharp edge."""
    centre = _choose(rng, position, lungs.astype(np.float32))
    radius = rng.uniform(0.06, 0.13)
    level = ellipsoid(position, centre, (radius,) * 3) + 0.15 * _cloud(rng, lungs.shape, 0.05)
    return [(np.where(lungs, _fuzzy(level, 0.1), 0).astype(np.float32), rng.uniform(20, 60))]


def effusion(rng: np.random.Generator, position: Coordinates, lungs: NDArray[np.bool_]) -> list[Lesion]:
    """Fluid in the lowest, rearmost part of one pleural space."""
    z, y, x = position
    pleura = lungs & (x * float(rng.choice((-1.0, 1.0))) > 0)
    if not pleura.any():
        return []
    low = 0.8 * y - 0.6 * z
    surface = np.quantile(low[pleura], rng.uniform(0.75, 0.92))
    return [((pleura & (low > surface)).astype(np.float32), rng.uniform(0, 20))]


FINDINGS: dict[str, Draw] = {
    "covid": covid,
    "consolidation": consolidation,
    "tumour": tumour,
    "effusion": effusion,
}


def _choose(rng: np.random.Generator, position: Coordinates, chance: NDArray[np.floating]) -> tuple[float, ...]:
    """The position of one voxel, drawn in proportion to `chance` (zero everywhere: the centre of the field)."""
    cumulative = np.cumsum(chance.ravel(), dtype=np.float64)
    index = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    return tuple(float(axis.flat[min(index, chance.size - 1)]) for axis in position)


def _fuzzy(level: Array, softness: float) -> Array:
    """1 well inside ``level < 1``, `MASK_THRESHOLD` at level 1, and down to 0 outside."""
    weight: Array = np.clip(MASK_THRESHOLD + (1 - level) / softness, 0, 1)
    return weight


def _cloud(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> Array:
    """Smooth noise of mean 0 and standard deviation 1; `scale`: correlation length, fraction of half the field."""
    coarse = [max(2, round(2 / scale)) for _ in shape]
    noise = rng.standard_normal(coarse, dtype=np.float32)
    factors = [n / c for n, c in zip(shape, coarse, strict=True)]
    smooth: Array = ndimage.zoom(noise, factors, order=1, grid_mode=True, mode="nearest")
    smooth /= smooth.std()
    return smooth
