"""Drawings of the feature relations of `RDCLTrainer`: matrices of some epochs, scalars of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.utilities.figures import saved_figure
from nnunet_ext.utilities.relation_record import (
    DISTANCE_TITLES,
    RANK_SERIES,
    TITLES,
    WEIGHT_SERIES,
    Matrices,
    differences,
)

MATRIX_COLOURS, DIFFERENCE_COLOURS = "viridis", "Reds"
BRIGHTEST = 99.5
"""Percentile that ends the colour scale: a few large elements would leave the rest dark."""


def draw_matrices(path: Path, matrices: Matrices) -> None:
    """The relation matrices above, their absolute differences below; each row with one colour scale."""
    shown, apart = {TITLES[name]: matrices[name] for name in TITLES if name in matrices}, differences(matrices)
    with saved_figure(path, 3.4 * len(shown), 6.4, dpi=130) as figure:
        axes = figure.subplots(2, len(shown), squeeze=False)
        for row, panels, colours in ((axes[0], shown, MATRIX_COLOURS), (axes[1], apart, DIFFERENCE_COLOURS)):
            for axis, title in zip(row, panels, strict=False):
                axis.set_title(title, fontsize="medium")
                axis.set(xlabel="channel", ylabel="channel")
            for axis in row[len(panels) :]:
                axis.set_visible(False)
            _show(figure, row, list(panels.values()), colours, shrink=0.8)


def draw_epochs(path: Path, kept: Mapping[int, Matrices]) -> None:
    """Figs. 5 and 6 of the paper in one: a row per epoch; the matrices, then their absolute differences. One colour
    scale for all matrices, one for all differences.

    Args:
        path: the PNG.
        kept: epoch -> matrices, at least one epoch.
    """
    names = [name for name in TITLES if name in next(iter(kept.values()))]
    rows = {epoch: [matrices[name] for name in names] for epoch, matrices in kept.items()}
    apart = {epoch: differences(matrices) for epoch, matrices in kept.items()}
    titles = [TITLES[name] for name in names] + list(next(iter(apart.values())))
    with saved_figure(path, 2.1 * len(titles) + 0.5, 2.1 * len(kept) + 1.2, dpi=130) as figure:
        figure.set_layout_engine("compressed")  # square panels
        axes = figure.subplots(len(kept), len(titles), squeeze=False)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
        for axis, title in zip(axes[0], titles, strict=True):
            axis.set_title(title.replace(" - ", "\n- "), fontsize="medium")
        for axis, epoch in zip(axes[:, 0], kept, strict=True):
            axis.set_ylabel(f"epoch {epoch}")
        for block, panels, colours in (
            (axes[:, : len(names)], [panel for row in rows.values() for panel in row], MATRIX_COLOURS),
            (axes[:, len(names) :], [panel for row in apart.values() for panel in row.values()], DIFFERENCE_COLOURS),
        ):
            _show(figure, block.flat, panels, colours, location="bottom", aspect=30, shrink=0.7, pad=0.01)


def draw_course(path: Path, series: Mapping[str, Sequence[float]]) -> None:
    """Mean distances over all epochs with the weight of their losses, below them the effective rank of
    the general features as share of the largest possible one.

    Args:
        path: the PNG.
        series: key as in ``progress.csv`` -> value per epoch, nan where there is none; others are passed over.
    """
    with saved_figure(path, 7, 5.6, dpi=130) as figure:
        distance, rank = figure.subplots(2, sharex=True, height_ratios=(3, 2))
        for key, title in DISTANCE_TITLES.items():
            if key in series:
                _plot(distance, series[key], title)
        weight = distance.twinx()
        _plot(weight, series.get(WEIGHT_SERIES, []), "weight of the losses (right)", color="0.6", linestyle="--")
        _plot(rank, series.get(RANK_SERIES, []), "rank", color="C2")
        distance.set(ylabel="mean distance per channel", ylim=(0, None))
        weight.set(ylabel="weight", ylim=(0, None))
        rank.set(xlabel="epoch", ylabel="effective rank of F_G", ylim=(0, 1.05))
        handles = [*distance.get_lines(), *weight.get_lines()]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize="small", frameon=False)
        for axis in (distance, rank):
            axis.grid(alpha=0.3)


def _plot(axis: Any, values: Sequence[float], label: str, **style: Any) -> None:
    axis.plot(range(len(values)), values, marker=".", markersize=4, linewidth=1.2, label=label, **style)


def _show(figure: Any, axes: Any, panels: Sequence[NDArray[Any]], colours: str, **colour_bar: Any) -> None:
    """A matrix (C, C) in each of the first of `axes`, all on one colour scale, and a colour bar beside all of `axes`.
    Elements that are not finite stay white."""
    axes = list(axes)
    values = np.concatenate([np.float32(panel[np.isfinite(panel)]) for panel in panels])
    low, high = (min(values.min(), 0), np.percentile(values, BRIGHTEST)) if values.size else (0, 1)
    for axis, panel in zip(axes, panels, strict=False):
        image = axis.imshow(np.float32(panel), cmap=colours, vmin=low, vmax=high, interpolation="antialiased")
    clipped = values.size and values.max() > high
    figure.colorbar(image, ax=axes, extend="max" if clipped else "neither", **colour_bar)
