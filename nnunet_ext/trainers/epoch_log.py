"""What an epoch leaves behind besides nnU-Net's own log: ``progress.csv`` and ``losses.png``.

Both are drawn from the host logger's lists, so a resumed run continues them without a seam.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_ext.utilities.figures import saved_figure
from nnunet_ext.utilities.files import atomic_path

HOST_SERIES = ("train_losses", "val_losses", "mean_fg_dice", "ema_fg_dice", "lrs")


def log_value(logging: dict[str, list[Any]], key: str, value: float, epoch: int) -> None:
    """Put `value` at position `epoch` of series `key`; epochs in which the series did not exist become nan.

    nnU-Net's logger refuses unknown keys and gaps, and its plot stops at the shortest series.
    """
    series = logging.setdefault(key, [])
    series.extend([math.nan] * (epoch - len(series)))
    series[epoch:] = [float(value)]


def mean_losses(outputs: list[dict[str, Any]]) -> dict[str, float]:
    """Mean of each named loss over the steps that had it; their sum (key ``loss``) is the host's."""
    keys = dict.fromkeys(key for output in outputs for key in output if key != "loss")
    return {key: float(np.mean([output[key] for output in outputs if key in output])) for key in keys}


def named_series(logging: dict[str, list[Any]]) -> dict[str, list[float]]:
    """The series that our trainers added: their keys have a slash (``loss/xray``, ``prototypes/ct_used``)."""
    return {key: values for key, values in logging.items() if "/" in key}


def write_progress_csv(logging: dict[str, list[Any]], path: Path) -> None:
    """One row per finished epoch: epoch, nnU-Net's scalars, epoch_seconds, every named series. Atomic."""
    seconds = [e - s for s, e in zip(logging["epoch_start_timestamps"], logging["epoch_end_timestamps"], strict=False)]
    columns = {key: logging[key] for key in HOST_SERIES} | {"epoch_seconds": seconds} | named_series(logging)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", *columns])
        for epoch in range(len(seconds)):
            writer.writerow([epoch, *(f"{values[epoch]:.6g}" for values in columns.values())])


def plot_named_series(logging: dict[str, list[Any]], path: Path) -> None:
    """``losses.png``: one panel per group of named series (``loss``, ``prototypes``, ...). Atomic."""
    groups: dict[str, dict[str, list[float]]] = {}
    for key, values in named_series(logging).items():
        group, name = key.split("/", 1)
        groups.setdefault(group, {})[name] = values
    if not groups:
        return
    with saved_figure(path, 9, 3.2 * len(groups)) as figure:
        axes = figure.subplots(len(groups), squeeze=False)[:, 0]
        for axis, (group, series) in zip(axes, groups.items(), strict=True):
            for name, values in series.items():
                axis.plot(range(len(values)), values, label=name)
            axis.set(xlabel="epoch", ylabel=group)
            axis.legend()
            axis.grid(alpha=0.3)


def epoch_summary(logging: dict[str, list[Any]], num_epochs: int) -> str:
    """One line: losses, pseudo Dice, seconds and the time that is left at the pace of the last ten epochs."""
    epoch = len(logging["epoch_end_timestamps"]) - 1
    starts, ends = logging["epoch_start_timestamps"], logging["epoch_end_timestamps"]
    recent = [e - s for s, e in zip(starts[-10:], ends[-10:], strict=True)]
    losses = " ".join(
        f"{key.split('/')[1]} {values[epoch]:.4f}"
        for key, values in named_series(logging).items()
        if key.startswith("loss/")
    )
    return (
        f"Epoch {epoch + 1}/{num_epochs}: {losses} val {logging['val_losses'][epoch]:.4f}"
        f" pseudo Dice {logging['mean_fg_dice'][epoch]:.4f} {recent[-1]:.1f} s,"
        f" {duration(sum(recent) / len(recent) * (num_epochs - epoch - 1))} left"
    )


def duration(seconds: float) -> str:
    """``3723.4`` -> ``1:02:03``."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def plain(value: Any) -> Any:
    """NumPy scalars and arrays as Python numbers and lists, through lists and dicts."""
    if isinstance(value, dict):
        return {key: plain(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [plain(element) for element in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
