"""Strides, kernel sizes and feature-map sizes of the UCI network, level by level.

The network has six levels: two convolutional stem levels and four Transformer stages. The first level keeps the
resolution of the input, the other five are strided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Size = tuple[int, ...]
NUM_STEM_LEVELS = 2
NUM_STAGES = 4
NUM_LEVELS = NUM_STEM_LEVELS + NUM_STAGES
SMALLEST_AXIS = 2


@dataclass(frozen=True)
class Topology:
    """How each level of an encoder shrinks its input.

    strides: one tuple for the second stem level and one for each of the four stages (five in all).
    kernel_sizes: one tuple for each of the six levels, odd, applied with padding ``kernel // 2``.
    """

    strides: tuple[Size, ...]
    kernel_sizes: tuple[Size, ...]

    @classmethod
    def paper(cls) -> Topology:
        """The fixed CT topology of the authors: total stride (4, 32, 32)."""
        strides = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 2, 2))
        return cls(strides, ((3, 3, 3),) * NUM_LEVELS)

    @classmethod
    def xray(cls, patch_size: Sequence[int]) -> Topology:
        """The X-ray topology: total stride 32, less only for patches of under 33 pixels."""
        strides = ((2, 2),) * (NUM_LEVELS - 1)
        return cls(limited_strides(strides, patch_size), ((3, 3),) * NUM_LEVELS)

    @classmethod
    def from_plan(
        cls, strides: Sequence[Sequence[int]], kernel_sizes: Sequence[Sequence[int]], patch_size: Sequence[int]
    ) -> Topology:
        """The topology of an nnU-Net plan (`strides` and `kernel_sizes` of all its stages, the first included).

        Stages beyond the sixth are dropped, absent ones get stride 1; a stride that would leave fewer than two voxels
        on an axis becomes 1 on that axis.

        Raises:
            ValueError: the plan is not three-dimensional.
        """
        if len(patch_size) != 3:
            raise ValueError(
                f"UCI segments volumes, but patch_size={list(patch_size)} is not 3D; use a 3d configuration"
            )
        unit = (1,) * len(patch_size)
        taken = [tuple(int(s) for s in stride) for stride in strides[1:NUM_LEVELS]]
        taken += [unit] * (NUM_LEVELS - 1 - len(taken))
        kernels = [tuple(int(k) for k in kernel) for kernel in kernel_sizes[:NUM_LEVELS]]
        kernels += [kernels[-1]] * (NUM_LEVELS - len(kernels))
        return cls(limited_strides(taken, patch_size), tuple(kernels))

    def sizes(self, patch_size: Sequence[int]) -> list[Size]:
        """Spatial size of each of the six levels for an input of `patch_size`.

        A strided convolution with odd kernel and padding ``kernel // 2`` yields ``ceil(size / stride)``.

        Raises:
            ValueError: a level has a single voxel, so that its instance normalisation is undefined.
        """
        sizes = [tuple(int(n) for n in patch_size)]
        for stride in self.strides:
            sizes.append(tuple(-(-n // s) for n, s in zip(sizes[-1], stride, strict=True)))
        if all(n == 1 for n in sizes[-1]):
            raise ValueError(f"patch_size={list(patch_size)} is too small: strides {self.strides} leave a single voxel")
        return sizes


def limited_strides(strides: Sequence[Size], patch_size: Sequence[int]) -> tuple[Size, ...]:
    """`strides` with 1 wherever an axis would fall below two voxels."""
    size = tuple(patch_size)
    limited = []
    for stride in strides:
        stride = tuple(s if -(-n // s) >= SMALLEST_AXIS else 1 for n, s in zip(size, stride, strict=True))
        size = tuple(-(-n // s) for n, s in zip(size, stride, strict=True))
        limited.append(stride)
    return tuple(limited)


def reduction_ratio(nominal: int, grid: Sequence[int]) -> Size:
    """Per axis the largest divisor of the axis that does not exceed `nominal`: no token is ever cut off.

    >>> reduction_ratio(8, (16, 14, 6))
    (8, 7, 6)
    """
    return tuple(max(r for r in range(1, nominal + 1) if n % r == 0) for n in grid)
