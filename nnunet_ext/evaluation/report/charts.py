"""Line charts of a training run as plain numbers and SVG path strings; the template draws them."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 54, 10, 10, 36
"""Size and margins of the drawing in SVG units; close to a phone's pixels, so that its text stays legible there."""

NAMES = {
    "train_losses": "training",
    "val_losses": "validation",
    "mean_fg_dice": "epoch",
    "ema_fg_dice": "moving average",
    "lrs": "learning rate",
    "epoch_seconds": "seconds",
}
GROUP_TITLES = {"loss": "Named losses (training)", "prototypes": "Prototypes in use"}


@dataclass(frozen=True)
class Line:
    """One series: its values (nan where there is none) and the path that draws it."""

    name: str
    values: list[float]
    path: str
    last: str
    lowest: str
    highest: str


@dataclass(frozen=True)
class Chart:
    """Lines over epochs; ticks are (position in SVG units, text)."""

    title: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    description: str
    num_epochs: int


def read_progress(path: Path) -> dict[str, list[float]]:
    """Columns of ``progress.csv`` by name; a cell that is no number becomes nan. Empty if there is no file."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {key: [_number(row.get(key)) for row in rows] for key in (rows[0] if rows else {}) if key is not None}


def training_charts(progress: dict[str, list[float]]) -> list[Chart]:
    """Losses, every group of named series (``loss/xray`` belongs to group ``loss``), pseudo Dice, learning rate, time.

    Series without a single number are left out.
    """
    groups: dict[str, dict[str, str]] = {}
    for key in progress:
        if "/" in key:
            group, name = key.split("/", 1)
            groups.setdefault(group, {})[key] = name
    plan = [("Loss", {key: NAMES[key] for key in ("train_losses", "val_losses")})]
    if "loss" in groups:
        plan.append((GROUP_TITLES["loss"], groups.pop("loss")))
    plan.append(("Pseudo Dice (validation patches)", {key: NAMES[key] for key in ("mean_fg_dice", "ema_fg_dice")}))
    plan += [(GROUP_TITLES.get(group, group.capitalize()), names) for group, names in groups.items()]
    plan += [("Learning rate", {"lrs": NAMES["lrs"]}), ("Seconds per epoch", {"epoch_seconds": NAMES["epoch_seconds"]})]
    charts = []
    for title, names in plan:
        series = {name: progress[key] for key, name in names.items() if any(map(math.isfinite, progress.get(key, [])))}
        if series:
            charts.append(line_chart(title, series))
    return charts


def line_chart(title: str, series: dict[str, list[float]]) -> Chart:
    """Lay out series of equal length, each with at least one finite value; gaps break the line."""
    num_epochs = max(len(values) for values in series.values())
    finite = [value for values in series.values() for value in values if math.isfinite(value)]
    y_values = ticks(min(finite), max(finite))
    low, high = min(y_values[0], min(finite)), max(y_values[-1], max(finite))

    def x_of(epoch: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * epoch / max(num_epochs - 1, 1)

    def y_of(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low))

    lines = []
    for name, values in series.items():
        points = [(x_of(i), y_of(v)) if math.isfinite(v) else None for i, v in enumerate(values)]
        known = [value for value in values if math.isfinite(value)]
        lines.append(Line(name, values, svg_path(points), number(known[-1]), number(min(known)), number(max(known))))
    x_ticks = [(round(x_of(epoch), 1), f"{epoch:.0f}") for epoch in ticks(0, max(num_epochs - 1, 1)) if epoch % 1 == 0]
    x_ticks = [tick for tick in x_ticks if tick[0] <= WIDTH - RIGHT + 0.1]
    texts = "; ".join(f"{line.name} ends at {line.last}, from {line.lowest} to {line.highest}" for line in lines)
    y_ticks = [(round(y_of(value), 1), f"{value:.10g}") for value in y_values]
    return Chart(title, lines, x_ticks, y_ticks, f"{title} over {num_epochs} epochs: {texts}", num_epochs)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from at most `low` to at least `high`.

    A span of zero is widened so that a constant series has an axis.
    """
    if high - low < 1e-12 * max(abs(low), abs(high), 1e-12):
        margin = abs(high) / 2 if abs(high) > 1e-12 else 1.0
        low, high = low - margin, high + margin
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def svg_path(points: Sequence[tuple[float, float] | None]) -> str:
    """``M..L..`` through the points; None lifts the pen. A lone point becomes a dot (with round line caps)."""
    commands, pen_down = [], False
    for i, point in enumerate(points):
        if point is None:
            pen_down = False
            continue
        commands.append(f"{'L' if pen_down else 'M'}{point[0]:.1f} {point[1]:.1f}")
        alone = not pen_down and (i + 1 == len(points) or points[i + 1] is None)
        if alone:
            commands.append("h0")
        pen_down = True
    return "".join(commands)


def number(value: float) -> str:
    """At most 4 significant digits."""
    return f"{value:.4g}"


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
