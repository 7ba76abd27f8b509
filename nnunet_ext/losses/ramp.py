"""Ramp-up of a loss weight over the training."""

from __future__ import annotations

import math

RAMPS = ("gaussian", "exp")


def ramp_up(progress: float, form: str = "gaussian") -> float:
    """Factor of a weight that grows to 1 at the end of the training.

    Args:
        progress: share of the training that is done, T / T_max in [0, 1].
        form: ``gaussian``: exp(-5 (1 - progress)^2) (Laine & Aila, whom the RDCL paper follows); ``exp``:
            exp(-5 (1 - progress)) (as that paper prints it). Both start at exp(-5), about 0.0067.

    Raises:
        ValueError: `progress` outside of [0, 1] or another `form`.
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress={progress!r} is outside the range [0, 1]")
    if form not in RAMPS:
        raise ValueError(f"form={form!r} is not one of {', '.join(RAMPS)}")
    remaining = 1 - progress
    return math.exp(-5 * (remaining**2 if form == "gaussian" else remaining))
