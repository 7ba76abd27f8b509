"""Surface elements of a mask: where they lie, and the area of the surface that passes there.

A surfel lies at each corner of the voxel grid whose 2x2x2 (2D: 2x2) neighbours are not all alike. Which of them are
foreground is the corner's code; the code and the spacing tell the area of the marching-cubes surface between them.
Where the code is ambiguous, diagonal foreground voxels are taken as apart, and so are diagonal background voxels: a
mask and its complement have the same surface. This gives the area table of DeepMind's surface-distance, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class SurfelAreas(NamedTuple):
    """Areas of N surfels (mm^2; 2D: lengths in mm; 1D: ones), all positive: as codes (N,), and the area of each code.
    An eighth of the memory of the areas themselves."""

    codes: NDArray[np.uint8]
    table: Array

    def values(self) -> Array:
        """(N,) areas."""
        return self.table[self.codes]


def surfels(mask: NDArray[np.bool_], spacing: Sequence[float] | Array) -> tuple[NDArray[np.bool_], SurfelAreas]:
    """Surface elements of a 1D, 2D or 3D mask; outside it is background.

    Returns: where surfels are, True or False for each corner of the grid (one more than voxels along each axis: corner
    i lies between the voxels i - 1 and i); and their areas in C order.
    """
    code = np.zeros([length + 1 for length in mask.shape], dtype=np.uint8)
    num_neighbours = 2**mask.ndim
    padded = np.pad(mask, 1).view(np.uint8)
    for bit, corner in enumerate(product((0, 1), repeat=mask.ndim), start=1):
        window = tuple(slice(start, start + length) for start, length in zip(corner, code.shape, strict=True))
        code |= padded[window] << np.uint8(num_neighbours - bit)
    found = (code > 0) & (code < 2**num_neighbours - 1)
    return found, SurfelAreas(code[found], areas(tuple(float(s) for s in spacing)))


@lru_cache
def areas(spacing: tuple[float, ...]) -> Array:
    """Area of each code: 256 codes in 3D (mm^2), 16 in 2D (mm), 4 in 1D (one per boundary)."""
    if len(spacing) == 1:
        return np.array([0.0, 1.0, 1.0, 0.0])
    return _contour_lengths(spacing) if len(spacing) == 2 else _surface_areas(spacing)


def _contour_lengths(spacing: tuple[float, ...]) -> Array:
    """Bits of a code, from the highest: (0, 0), (0, 1), (1, 0), (1, 1)."""
    diagonal, (row, column) = math.hypot(*spacing) / 2, spacing
    lengths = np.full(16, diagonal)  # one corner differs from the three others
    lengths[[0, 15]] = 0
    lengths[[0b0110, 0b1001]] = 2 * diagonal
    lengths[[0b1100, 0b0011]] = column  # upper and lower half: the contour runs along the columns
    lengths[[0b1010, 0b0101]] = row
    return lengths


def _surface_areas(spacing: tuple[float, ...]) -> Array:
    """Bits of a code, from the highest: (0, 0, 0), (0, 0, 1), (0, 1, 0), ..., (1, 1, 1)."""
    from skimage.measure import marching_cubes

    found = np.zeros(256)
    for code in range(1, 255):
        cube = np.array([code >> bit & 1 for bit in range(7, -1, -1)], dtype=np.float64).reshape(2, 2, 2)
        corners, triangles, _, _ = marching_cubes(cube, 0.5, method="lorensen")  # corners at multiples of 0.5: exact
        a, b, c = (corners[triangles] * np.asarray(spacing)).transpose(1, 0, 2)
        found[code] = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    # The smaller of a code and its complement: the surface that keeps diagonal voxels apart, whichever kind they are.
    return np.minimum(found, found[::-1])
