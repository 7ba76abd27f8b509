"""Rigid registration of two modalities by mutual information (Mattes et al., IEEE TMI 22, 2003)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from SimpleITK import (
    Cast,
    Euler3DTransform,
    Image,
    ImageRegistrationMethod,
    ProcessObject,
    Transform,
    sitkFloat32,
    sitkLinear,
    sitkUInt8,
)

from nnunet_ext.dataset_conversion.resampling import onto_grid

SPACING = 2.0
"""Of the finest level, mm."""
LEVELS = (4, 2, 1)
"""Voxels of a level in those of the finest, and sigma of its Gaussian in mm."""
BINS, SAMPLES, SEED = 50, 0.1, 12345


@dataclass(frozen=True)
class Registration:
    """How a moving image was brought to a fixed one.

    Attributes:
        transform: points of the fixed image -> points of the moving one.
        mutual_information: before and after, in nats, over all voxels of the finest level.
        translation: how far the centre of the moving image went, mm.
        rotation: the angle it was turned by, degrees.
    """

    transform: Transform
    mutual_information: tuple[float, float]
    translation: float
    rotation: float


def register_rigid(fixed: Image, moving: Image, outside: float) -> Registration:
    """The rigid transform from `fixed` to `moving` that maximises Mattes' mutual information, from the identity on.

    Three levels of resolution, a tenth of the voxels drawn by a seed, one thread: two runs give the same numbers.
    Points of `fixed` outside of `moving` do not count; `outside` (the value of air) fills up where the isotropic grid
    of the finest level reaches beyond `fixed`.

    Raises:
        RuntimeError: the images do not overlap, or lost each other.
    """
    with _one_thread():
        fixed, moving = onto_grid(fixed, _isotropic(fixed), Transform(), outside), Cast(moving, sitkFloat32)
        transform = Euler3DTransform()
        centre = [(size - 1) / 2 for size in moving.GetSize()]
        transform.SetCenter(moving.TransformContinuousIndexToPhysicalPoint(centre))
        before = _mutual_information(fixed, moving, transform)
        _optimise(fixed, moving, transform)
        after = _mutual_information(fixed, moving, transform)
    cosine = (np.trace(np.reshape(transform.GetMatrix(), (3, 3))) - 1) / 2
    return Registration(
        transform,
        (before, after),
        float(np.linalg.norm(transform.GetTranslation())),
        float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))),
    )


def _optimise(fixed: Image, moving: Image, transform: Euler3DTransform) -> None:
    """Change `transform` to the one of highest mutual information, by Powell's method.

    It needs no derivative: on images of known pose it ended within 1 mm, gradient descent up to 4 mm off.
    """
    method = _method(SAMPLES)
    method.SetOptimizerAsPowell(
        numberOfIterations=20, maximumLineIterations=50, stepLength=1.0, stepTolerance=1e-3, valueTolerance=1e-5
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(LEVELS)
    method.SetSmoothingSigmasPerLevel(LEVELS)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(fixed, moving)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of several threads differ in their last digits; the metric heeds the global number of threads only."""
    number = ProcessObject.GetGlobalDefaultNumberOfThreads()
    ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        ProcessObject.SetGlobalDefaultNumberOfThreads(number)


def _isotropic(image: Image) -> Image:
    """An empty grid of `SPACING` over the field of view of `image`."""
    extent = np.multiply(image.GetSize(), image.GetSpacing())
    grid = Image(np.ceil(extent / SPACING).astype(int).tolist(), sitkUInt8)
    grid.SetSpacing([SPACING] * 3)
    grid.SetDirection(image.GetDirection())
    # From the corner of the field of view to the centre of the first voxel.
    first = [SPACING / 2 / voxel - 0.5 for voxel in image.GetSpacing()]
    grid.SetOrigin(image.TransformContinuousIndexToPhysicalPoint(first))
    return grid


def _mutual_information(fixed: Image, moving: Image, transform: Transform) -> float:
    method = _method()
    method.SetInitialTransform(transform)
    return -float(method.MetricEvaluate(fixed, moving))


def _method(samples: float | None = None) -> ImageRegistrationMethod:
    """Mattes' metric over all voxels, or over a share of them."""
    method = ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetInterpolator(sitkLinear)
    if samples is not None:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(samples, SEED)
    return method
