"""The picture that RDCL leaves for the report: the relation matrices and how they differ."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.trainers.relation_monitor import GENERAL, NON_TARGET, TARGET
from nnunet_ext.utilities.figures import saved_figure
from nnunet_ext.utilities.pictures import Picture

FILE_NAME = "relations.png"
TITLES = {NON_TARGET: "R_G(non-target)", GENERAL: "R_G(target)", TARGET: "R_T(target)"}
PAIRS = ((NON_TARGET, GENERAL), (GENERAL, TARGET))


def draw_relations(matrices: Mapping[str, NDArray[np.float32]], folder: Path) -> Picture:
    """Write ``relations.png``: the relation matrices of the last step above, their absolute differences below.

    Args:
        matrices: name as in `TITLES` -> (C, C), `GENERAL` and `TARGET` at least.
        folder: where the file goes.
    """
    shown = {TITLES[name]: matrices[name] for name in TITLES if name in matrices}
    differences = {f"|{TITLES[a]} - {TITLES[b]}|": np.abs(matrices[a] - matrices[b]) for a, b in PAIRS if a in matrices}
    with saved_figure(folder / FILE_NAME, 3.4 * len(shown), 6.4, dpi=130) as figure:
        axes = figure.subplots(2, len(shown), squeeze=False)
        for row, panels, colours in ((axes[0], shown, "viridis"), (axes[1], differences, "magma")):
            _draw_row(figure, row, panels, colours)
    texts = [f"mean {title} is {difference.mean():.4f}" for title, difference in differences.items()]
    return Picture(
        FILE_NAME,
        "Feature relations",
        "Relation of every feature channel to every other in the last training step. Left to right: the general"
        " encoder on non-target and on target images, which L_G pulls together, and the target encoder on target"
        " images, which L_T pushes away. Below: how far they are apart.",
        "; ".join(texts),
    )


def _draw_row(figure: Any, axes: Any, panels: Mapping[str, NDArray[np.float32]], colours: str) -> None:
    """One colour scale for the whole row; axes without a panel vanish."""
    low, high = min(panel.min() for panel in panels.values()), max(panel.max() for panel in panels.values())
    for axis, (title, panel) in zip(axes, panels.items(), strict=False):
        image = axis.imshow(panel, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axis.set_title(title, fontsize="medium")
        axis.set(xlabel="channel", ylabel="channel")
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.colorbar(image, ax=list(axes[: len(panels)]), shrink=0.8)
