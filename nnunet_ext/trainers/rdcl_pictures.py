"""The pictures that RDCL leaves for the report: the relation matrices, and how far apart they were in each epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunet_ext.utilities.pictures import Picture
from nnunet_ext.utilities.relation_figures import draw_course, draw_matrices
from nnunet_ext.utilities.relation_record import DISTANCE_TITLES, RANK_SERIES, Matrices, differences

FILE_NAME, COURSE_FILE_NAME = "relations.png", "relations_over_epochs.png"


def draw_relations(matrices: Matrices, folder: Path) -> Picture:
    """Write ``relations.png``: the mean relation matrices of the last epoch, their absolute differences below."""
    draw_matrices(folder / FILE_NAME, matrices)
    texts = [f"mean {title} is {difference.mean():.4f}" for title, difference in differences(matrices).items()]
    return Picture(
        FILE_NAME,
        "Feature relations",
        "Relation of every feature channel to every other, mean over the last training epoch. Left to right: the"
        " general encoder on non-target and on target images, which L_G pulls together, and the target encoder on"
        " target images, which L_T pushes away. Below: how far they are apart.",
        "; ".join(texts),
    )


def draw_relation_course(series: Mapping[str, Sequence[float]], folder: Path) -> Picture:
    """Write ``relations_over_epochs.png``.

    Args:
        series: logged values per epoch, as `draw_course` takes them; one distance at least.
        folder: where the file goes.
    """
    draw_course(folder / COURSE_FILE_NAME, series)
    texts = [
        f"{name} goes from {series[key][0]:.4g} to {series[key][-1]:.4g}"
        for key, name in {**DISTANCE_TITLES, RANK_SERIES: "rank"}.items()
        if series.get(key)
    ]
    return Picture(
        COURSE_FILE_NAME,
        "Relations over epochs",
        "Mean squared distance of the relation matrices per channel, and the effective rank of the general encoder's"
        " features. The distance that L_G makes small should fall, that of L_T rise and settle; a rank near 0 means"
        " that the general encoder has collapsed.",
        "; ".join(texts),
    )
