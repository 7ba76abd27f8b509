"""Radiographs: projections of CT volumes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

WATER_ATTENUATION = 0.02
"""Linear attenuation of water at the mean energy of a chest X-ray tube, 1/mm."""
PHOTOELECTRIC = 0.8
"""What bone attenuates in excess of its Hounsfield units: X-ray tubes run at lower energies than CT tubes."""
SCATTER = 0.02
"""Scattered radiation that reaches the detector everywhere, share of the open beam."""

FOCAL_SPOT = 0.45
"""Standard deviation of the blur of a focal spot that is no point, voxels."""


def radiograph(
    ct: NDArray[np.int16], spacing: tuple[float, float, float], size: tuple[int, int] = (256, 256)
) -> NDArray[np.uint8]:
    """A posterior-anterior X-ray of a CT volume: parallel beams along y, Beer-Lambert, logarithmic detector.

    I / I0 = exp(-sum mu dy) + scatter with mu = mu_water * (1 + HU / 1000) (more for bone), grey = -log(I / I0),
    sharpened, and brought to 0..255 between the 1st and the 99.5th percentile.

    Args:
        ct: (z, y, x) in HU, z to the head, y to the back, x to the patient's left.
        spacing: mm.
        size: height and width of the image, pixels.

    Returns: (height, width), the head at the top, the patient's left on the right, dense tissue white.
    """
    relative = ct.astype(np.float32) / 1000
    excess = PHOTOELECTRIC * np.clip(relative - 0.1, 0, None)
    attenuation = WATER_ATTENUATION * (np.clip(1 + relative, 0, None) + excess)
    thickness = ndimage.gaussian_filter(attenuation.sum(axis=1) * np.float32(spacing[1]), FOCAL_SPOT)
    grey = _sharpen(_resize(-np.log(np.exp(-thickness) + SCATTER)[::-1], size))
    low, high = np.percentile(grey, (1, 99.5))
    tone = np.clip((grey - low) / max(high - low, 1e-6), 0, 1)
    image: NDArray[np.uint8] = np.round(255 * tone).astype(np.uint8)
    return image


def _resize(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    factors = [new / old for new, old in zip(size, image.shape, strict=True)]
    resized: NDArray[np.float32] = ndimage.zoom(image, factors, order=3, grid_mode=True, mode="nearest")
    return resized


def _sharpen(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The unsharp mask of digital radiography: detail up to a tenth of the image is doubled."""
    sharpened: NDArray[np.float32] = image + (image - ndimage.gaussian_filter(image, image.shape[0] / 16))
    return sharpened
