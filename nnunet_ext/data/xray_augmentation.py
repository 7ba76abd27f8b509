"""Random views of an X-ray: crop, resize, rotation and flip as one affine map, sampled once.

Coordinates are those of `torch.nn.functional.grid_sample` with ``align_corners=False``: x (columns) before y (rows),
and -1 and 1 are the outer edges of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

ASPECT = (3 / 4, 4 / 3)
Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class XrayAugmentation:
    """How views are drawn. ``min_scale=1, flip=False, rotation=0`` always gives the whole image, upright."""

    min_scale: float = 0.5
    """smallest share of the image's area in a crop, (0, 1]"""
    flip: bool = False
    """mirror at random, on each axis with probability 1/2"""
    rotation: float = 7.0
    """largest angle in either direction, degrees"""


@dataclass(frozen=True)
class View:
    """A crop of the image, turned about its centre; the default is the whole image, upright."""

    x: float = 0.0
    """centre of the crop, in [-1, 1]"""
    y: float = 0.0
    width: float = 1.0
    """of the crop, as a share of the image's, (0, 1]"""
    height: float = 1.0
    angle: float = 0.0
    """radians, in pixels of the patch"""
    mirror_x: bool = False
    mirror_y: bool = False


def draw_view(generator: np.random.Generator, augmentation: XrayAugmentation) -> View:
    """A crop inside the image: area uniform in [min_scale, 1], aspect (width / height) log-uniform in [3/4, 4/3].

    The aspect is drawn from the part of its range for which a crop of that area fits: [area, 1 / area].
    """
    area = generator.uniform(augmentation.min_scale, 1)
    aspect = math.exp(generator.uniform(math.log(max(ASPECT[0], area)), math.log(min(ASPECT[1], 1 / area))))
    width, height = min(math.sqrt(area * aspect), 1.0), min(math.sqrt(area / aspect), 1.0)
    x, y = generator.uniform(-1, 1) * (1 - width), generator.uniform(-1, 1) * (1 - height)
    angle = math.radians(generator.uniform(-1, 1) * augmentation.rotation)
    mirror_x, mirror_y = (bool(value) for value in (generator.random(2) < 0.5) & augmentation.flip)
    return View(x, y, width, height, angle, mirror_x, mirror_y)


def affine_matrix(view: View, patch_size: tuple[int, int]) -> Matrix:
    """(2, 3) map from a place (x, y, 1) of the patch to the place (x, y) of the image that it shows.

    The patch is mirrored, rotated in its own pixels (height, width), scaled to the crop and moved to the crop's centre.
    """
    height, width = patch_size
    cosine, sine = math.cos(view.angle), math.sin(view.angle)
    flip_x, flip_y = (-1.0 if mirrored else 1.0 for mirrored in (view.mirror_x, view.mirror_y))
    return (
        (view.width * cosine * flip_x, -view.width * sine * height / width * flip_y, view.x),
        (view.height * sine * width / height * flip_x, view.height * cosine * flip_y, view.y),
    )


def show(image: NDArray[np.uint8] | Tensor, view: View, patch_size: tuple[int, int]) -> Tensor:
    """The patch (height, width) float32 that `view` shows of an image (S, S) uint8, grey values in [0, 255].

    Bilinear; places outside of the image take the value of its edge. Where the patch is much coarser than the image,
    the image is first made smaller with antialiasing.
    """
    source = torch.as_tensor(image).float()[None, None]  # (1, 1, S, S)
    height, width = patch_size
    reduction = min(view.height * source.shape[2] / height, view.width * source.shape[3] / width)
    if reduction > 1.5:
        smaller = [round(side / reduction) for side in source.shape[2:]]
        source = F.interpolate(source, size=smaller, mode="bilinear", antialias=True)
    (xx, xy, x0), (yx, yy, y0) = affine_matrix(view, patch_size)
    x, y = _pixel_centres(width), _pixel_centres(height)[:, None]
    grid = torch.empty(1, height, width, 2)  # affine_grid gives the same by a slow matrix product
    torch.add(y * xy + x0, x * xx, out=grid[0, ..., 0])
    torch.add(y * yy + y0, x * yx, out=grid[0, ..., 1])
    return F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)[0, 0]


def normalise(grey: Tensor, mean: float, std: float) -> Tensor:
    """(grey / 255 - mean) / std, in place: grey values in [0, 255], mean and std of values in [0, 1]."""
    return grey.sub_(255 * mean).mul_(1 / (255 * std))


def whole_views(images: NDArray[np.uint8], patch_size: tuple[int, int], mean: float, std: float) -> Tensor:
    """(B, S, S) uint8 -> (B, 1, height, width) float32, normalised: what validation and prediction look at."""
    patches = torch.empty(len(images), 1, *patch_size)
    for patch, image in zip(patches, images, strict=True):
        patch[0] = show(np.array(image), View(), patch_size)
    return normalise(patches, mean, std)


def _pixel_centres(length: int) -> Tensor:
    return (torch.arange(length) * 2 + 1) / length - 1
