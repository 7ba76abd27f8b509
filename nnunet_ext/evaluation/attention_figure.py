"""The attention maps of a case beside its images, as in Fig. 2 of Zhang et al., MICCAI 2021."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.evaluation.report.overlays import grey_window, largest_slice
from nnunet_ext.utilities.figures import saved_figure

WIDTH = 2.5
"""Inches of one panel."""
HEIGHTS = (1.2, 4.0)
"""Inches, at least and at most; beyond it the panel is narrower."""
OUTLINE = "#ff5a36"


@dataclass(frozen=True)
class Panel:
    """A modality: image and map A_i of one shape, (z, y, x) of the patient (LPS) or (y, x)."""

    name: str
    image: NDArray[Any]
    attention: NDArray[np.float32]
    is_ct: bool


def panels_file(case: Path) -> Path:
    """``CASE_attention.png`` for folder/CASE."""
    return case.with_name(f"{case.name}_attention.png")


def draw_attention(
    path: Path, case: str, panels: Sequence[Panel], foreground: NDArray[np.bool_], spacing: Sequence[float]
) -> None:
    """A column per modality: a slice of the image, below it A_i, on one colour scale from 0 to 1 for all.

    Volumes are cut across their coarsest axis (the first of several), where the predicted foreground, outlined, is
    largest; in the middle if there is none.

    Args:
        path: the PNG.
        case: its name.
        panels: at least one.
        foreground: predicted, of the images' shape.
        spacing: of each axis, mm.
    """
    place, where = choose_slice(foreground, spacing)
    rows, columns = (step for axis, step in enumerate(spacing) if foreground.ndim == 2 or axis != place[0])
    mask = _cut(foreground, place)
    height = float(np.clip(WIDTH * mask.shape[0] * rows / (mask.shape[1] * columns), *HEIGHTS))
    with saved_figure(path, WIDTH * len(panels) + 1.1, 2 * height + 0.9, dpi=130) as figure:
        figure.set_layout_engine("compressed")
        figure.suptitle(f"{case}{where}", fontsize="medium", parse_math=False)
        axes = figure.subplots(2, len(panels), squeeze=False)
        for (above, below), panel in zip(axes.T, panels, strict=True):
            low, high = grey_window(panel.image, foreground, panel.is_ct)
            above.imshow(_cut(panel.image, place), cmap="gray", vmin=low, vmax=high, aspect=rows / columns)
            above.set_title(panel.name, fontsize="medium", parse_math=False)
            shown = below.imshow(_cut(panel.attention, place), cmap="viridis", vmin=0, vmax=1, aspect=rows / columns)
            for axis in (above, below):
                axis.set(xticks=[], yticks=[])
                if mask.any() and not mask.all():
                    axis.contour(mask, levels=[0.5], colors=OUTLINE, linewidths=1)
        axes[0, 0].set_ylabel("image")
        axes[1, 0].set_ylabel("attention $A_i$")
        figure.colorbar(shown, ax=axes[1, :], aspect=15, pad=0.02)


def choose_slice(foreground: NDArray[np.bool_], spacing: Sequence[float]) -> tuple[tuple[int, int], str]:
    """Axis and index of the slice to show, and where that is in words; empty of a 2D image."""
    if foreground.ndim == 2:
        return (0, 0), ""
    axis = int(np.argmax(spacing))
    index = largest_slice(foreground, axis)
    reason = "where the predicted foreground is largest" if foreground.any() else "the middle, without foreground"
    return (axis, index), f", slice {index + 1} of {foreground.shape[axis]}, {reason}"


def _cut(volume: NDArray[Any], place: tuple[int, int]) -> NDArray[Any]:
    """Rows and columns, the patient's head up where it is in the slice."""
    if volume.ndim == 2:
        return volume
    axis, index = place
    cut: NDArray[Any] = volume.take(index, axis)
    return cut if axis == 0 else cut[::-1]
