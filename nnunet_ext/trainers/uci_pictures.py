"""The picture that UCI leaves for the report: how evenly the prototypes of each bank are used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.utilities.figures import saved_figure
from nnunet_ext.utilities.pictures import Picture

FILE_NAME = "prototype_usage.png"
NAMES = {"ct": "CT", "xray": "X-ray"}


def draw_prototype_usage(usage: Mapping[tuple[str, int], NDArray[np.float64]], folder: Path) -> Picture:
    """Write ``prototype_usage.png``: share of the tokens of the last epoch per prototype, prototypes by rank.

    Args:
        usage: (modality, block) -> number of tokens that each of the K prototypes received, (K,).
        folder: where the file goes.
    """
    texts = []
    with saved_figure(folder / FILE_NAME, 7, 3.6, dpi=130) as figure:
        axis = figure.subplots()
        for (modality, block), counts in usage.items():
            shares = np.sort(counts)[::-1] / max(counts.sum(), 1)
            used = np.count_nonzero(shares)
            name = f"{NAMES.get(modality, modality)}, block {block + 1}"
            style = "-" if modality == "ct" else "--"
            axis.plot(np.arange(1, used + 1), 100 * shares[:used], style, label=f"{name}: {used} of {len(shares)} used")
            texts.append(
                f"{name}: {used} of {len(shares)} prototypes used, the first takes {shares[0]:.0%} of the tokens"
            )
        largest = max(len(counts) for counts in usage.values())
        axis.axhline(100 / largest, color="0.5", linewidth=0.8, linestyle=":", label="even use")
        axis.set(xlabel="prototype, by rank", ylabel="tokens, %", yscale="log", xlim=(0, largest + 1))
        axis.legend(fontsize="small")
        axis.grid(alpha=0.3)
    return Picture(
        FILE_NAME,
        "Prototype usage",
        "Share of the last epoch's tokens that each prototype received, most used first. A curve that falls at once:"
        " few prototypes do the work; num_prototypes could be smaller, or reseed_after bring the others back.",
        "; ".join(texts),
    )
