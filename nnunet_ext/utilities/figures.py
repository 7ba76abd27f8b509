"""Figures as files, in one style."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nnunet_ext.utilities.files import atomic_path


@contextmanager
def saved_figure(path: str | os.PathLike[str], width: float, height: float, dpi: int = 110) -> Iterator[Any]:
    """Yield a matplotlib figure of so many inches; write it to `path`, atomically, if no exception comes.

    In matplotlib's own style: nnU-Net sets that of seaborn, with fonts 2.5 times as large, for the whole process.
    """
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.style.context("default"):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=dpi)
