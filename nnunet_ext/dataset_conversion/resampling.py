"""Images and masks of one patient brought onto one grid in world space (mm)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from SimpleITK import (
    DiscreteGaussian,
    GetArrayFromImage,
    Image,
    Resample,
    Transform,
    sitkFloat32,
    sitkLinear,
    sitkNearestNeighbor,
    sitkUInt8,
)


def onto_grid(image: Image, grid: Image, transform: Transform, outside: float) -> Image:
    """`image` on the voxels of `grid`, linearly interpolated, float32; `outside` where the image does not reach.

    `transform` maps points of `grid` to points of `image`. Along axes on which `grid` is coarser the image is smoothed
    first, by a Gaussian that widens a voxel of FWHM s to one of S mm (Cardoso et al., MICCAI 2015)::

        sigma^2 = (S^2 - s^2) / (8 ln 2)
    """
    variance = [
        max(coarse**2 - fine**2, 0.0) / (8 * np.log(2))
        for coarse, fine in zip(grid.GetSpacing(), image.GetSpacing(), strict=True)
    ]
    if any(variance):
        image = DiscreteGaussian(image, variance, maximumKernelWidth=64)
    return Resample(image, grid, transform, sitkLinear, outside, sitkFloat32)


def mask_onto_grid(mask: Image, grid: Image, transform: Transform) -> npt.NDArray[np.bool_]:
    """Where the nearest voxel of `mask` is not 0, as (z, y, x) on the voxels of `grid`; False outside of the mask."""
    return np.asarray(GetArrayFromImage(Resample(mask, grid, transform, sitkNearestNeighbor, 0)) != 0)


def field_of_view(image: Image, grid: Image, transform: Transform) -> npt.NDArray[np.bool_]:
    """Which voxels of `grid` (z, y, x) have their centre within `image`."""
    everywhere = Image(image.GetSize(), sitkUInt8) + 1
    everywhere.CopyInformation(image)
    return mask_onto_grid(everywhere, grid, transform)


def dice(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    """``2 |A and B| / (|A| + |B|)`` of two masks, 1 if both are empty."""
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return float(2 * np.count_nonzero(np.logical_and(first, second)) / total) if total else 1.0
