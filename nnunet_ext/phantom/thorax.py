"""One seed gives one patient: a CT volume and the masks of what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_ext.phantom.anatomy import Array, Tissue, coordinates, draw_build, tissue_map
from nnunet_ext.phantom.lesions import FINDINGS, MASK_THRESHOLD
from nnunet_ext.phantom.vessels import coverage, vessel_tree
from nnunet_ext.utilities.errors import UsageError

HOUNSFIELD = {
    Tissue.AIR: -1000,
    Tissue.FAT: -100,
    Tissue.MUSCLE: 50,
    Tissue.LUNG: -850,
    Tissue.AIRWAY: -980,
    Tissue.BLOOD: 40,
    Tissue.ORGAN: 60,
    Tissue.CARTILAGE: 100,
    Tissue.SPONGY_BONE: 220,
    Tissue.CORTICAL_BONE: 650,
}
SMALLEST_SHAPE = 16
BLUR = 0.45
"""Standard deviation of the scanner's blur within a slice, voxels; half of it across slices."""


@dataclass(frozen=True, eq=False)
class Patient:
    """A synthetic patient. Axes (z, y, x): z to the head, y to the back, x to the patient's left."""

    seed: int
    spacing: tuple[float, float, float]
    """Size of a voxel, mm."""
    findings: tuple[str, ...]
    """Kinds of lesion that were asked for."""
    ct: NDArray[np.int16]
    """Hounsfield units."""
    tissues: NDArray[np.uint8]
    """The healthy anatomy: `Tissue` of every voxel, before lesions and vessels."""
    lesions: dict[str, NDArray[np.bool_]]
    """One mask per finding, inside the lungs; no two overlap."""

    @property
    def lungs(self) -> NDArray[np.bool_]:
        """The lungs, vessels and lesions included."""
        lungs: NDArray[np.bool_] = self.tissues == Tissue.LUNG
        return lungs


def thorax(
    seed: int,
    shape: tuple[int, int, int] = (48, 96, 96),
    spacing: tuple[float, float, float] = (5.0, 3.0, 3.0),
    findings: Sequence[str] = ("covid",),
) -> Patient:
    """The patient of `seed`: the same healthy anatomy whatever the `findings`.

    Args:
        seed: any non-negative integer.
        shape: voxels (z, y, x); the thorax fills the field.
        spacing: size of a voxel (z, y, x), mm.
        findings: any of `FINDINGS`; later ones cover earlier ones. Empty: healthy.

    Raises:
        UsageError: an unknown finding, or a shape below 16 voxels along an axis.
    """
    check_shape(shape)
    unknown = [finding for finding in findings if finding not in FINDINGS]
    if unknown:
        raise UsageError(f"findings {', '.join(unknown)} unknown; choose from {', '.join(FINDINGS)}")
    anatomy = _generator(seed, "anatomy")
    position = coordinates(build := draw_build(anatomy), shape)
    tissues = tissue_map(build, position)
    lungs = tissues == Tissue.LUNG
    vessels = np.where(lungs, coverage(*vessel_tree(anatomy), shape), 0)

    ct = _mean_density(tissues)
    ct[lungs] += _parenchyma(anatomy, lungs, position[1])[lungs]
    ct += vessels * (HOUNSFIELD[Tissue.BLOOD] - ct)
    lesions: dict[str, NDArray[np.bool_]] = {}
    for finding in findings:
        mask = np.zeros(shape, bool)
        for weight, density in FINDINGS[finding](_generator(seed, finding), position, lungs):
            # A lesion never makes its vessels lighter.
            ct += weight * np.maximum(density - ct, 0)
            mask |= weight > MASK_THRESHOLD
        lesions = {name: earlier & ~mask for name, earlier in lesions.items()} | {finding: mask}
    return Patient(seed, spacing, tuple(findings), _scan(_generator(seed, "noise"), ct), tissues, lesions)


def check_shape(shape: tuple[int, ...]) -> None:
    """UsageError unless `shape` has three axes of at least 16 voxels."""
    if len(shape) != 3 or min(shape) < SMALLEST_SHAPE:
        raise UsageError(f"shape {shape} must be three numbers (z, y, x) of at least {SMALLEST_SHAPE} voxels")


def _generator(seed: int, purpose: str) -> np.random.Generator:
    """A stream of its own per purpose, so that a finding leaves anatomy and noise as they are."""
    return np.random.default_rng([seed, *purpose.encode()])


def _mean_density(tissues: NDArray[np.uint8]) -> Array:
    table = np.array([HOUNSFIELD[tissue] for tissue in Tissue], np.float32)
    density: Array = table[tissues]
    return density


def _parenchyma(rng: np.random.Generator, lungs: NDArray[np.bool_], y: Array) -> Array:
    """Departure of lung tissue from its mean density, HU: per patient, heavier at the back, mottled."""
    mottle = ndimage.gaussian_filter(rng.standard_normal(lungs.shape, dtype=np.float32), 1.2)
    departure: Array = np.float32(rng.uniform(-30, 30)) + 60 * y + 25 * mottle / mottle.std()
    return departure


def _scan(rng: np.random.Generator, ct: Array) -> NDArray[np.int16]:
    """What a scanner makes of the true densities: blur, noise (SD 12 to 22 HU), whole numbers from -1024 up."""
    blurred = ndimage.gaussian_filter(ct, (BLUR / 2, BLUR, BLUR))
    noisy = blurred + rng.uniform(12, 22) * rng.standard_normal(ct.shape, dtype=np.float32)
    whole: NDArray[np.int16] = np.clip(np.round(noisy), -1024, 3071).astype(np.int16)
    return whole
