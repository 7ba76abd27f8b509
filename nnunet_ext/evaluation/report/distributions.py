"""How a metric spreads over the cases: strip plots with a box, as plain numbers that the template draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnunet_ext.evaluation.metrics import METRICS
from nnunet_ext.evaluation.report.charts import WIDTH, ticks
from nnunet_ext.evaluation.report.evaluation import MEAN_TITLE, shown_classes
from nnunet_ext.evaluation.results import EvaluationResult, spell

DISTRIBUTION_METRICS = ("DSC", "NSD", "HD95")
LEFT, RIGHT, TOP, BOTTOM = 14, 14, 4, 36
"""Margins in SVG units; the width is that of the line charts."""
LABEL, STRIP, RADIUS = 20, 44, 3.5
"""Heights of a lane's label and of its strip, and the size of a point."""
GUTTER = 34
"""Width at the right end where infinite values are drawn."""


@dataclass(frozen=True)
class Point:
    """A case: where it is drawn, and what it says."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Lane:
    """One method: `box` is the x of first quartile, median, third quartile (None without a defined value)."""

    name: str
    top: float
    points: list[Point]
    box: tuple[float, float, float] | None
    text: str


@dataclass(frozen=True)
class Distribution:
    """One metric of one class; `infinite_x` is where infinite values are drawn, None if there are none."""

    title: str
    height: float
    lanes: list[Lane]
    x_ticks: list[tuple[float, str]]
    infinite_x: float | None
    axis: str
    description: str


def distribution_charts(results: Mapping[str, EvaluationResult]) -> dict[str, list[Distribution]]:
    """class -> a chart for each of `DISTRIBUTION_METRICS` that has a value, with a lane per method of `results`.

    Of many classes: `MEAN_TITLE`, then those shown (`shown_classes`).
    """
    classes = list(dict.fromkeys(name for result in results.values() for name in result.classes))
    shown = shown_classes(classes)
    charts = {
        name: [distribution(metric, values_of(results, metric, name)) for metric in DISTRIBUTION_METRICS]
        for name in shown
    }
    if len(shown) < len(classes):
        means = {
            metric: {method: result.mean_over_classes(metric) for method, result in results.items()}
            for metric in DISTRIBUTION_METRICS
        }
        charts = {MEAN_TITLE: [distribution(metric, found) for metric, found in means.items()]} | charts
    return {name: [chart for chart in found if chart.lanes] for name, found in charts.items()}


def values_of(results: Mapping[str, EvaluationResult], metric: str, class_name: str) -> dict[str, dict[str, float]]:
    """method -> case -> value of one metric of one class."""
    return {
        method: {row["case"]: row[metric] for row in result.rows if row["class"] == class_name}
        for method, result in results.items()
    }


def distribution(metric: str, values: Mapping[str, Mapping[str, float]]) -> Distribution:
    """Lay out method -> case -> value. Methods without a case have no lane."""
    values = {method: cases for method, cases in values.items() if cases}
    everything = [value for cases in values.values() for value in cases.values()]
    finite = [value for value in everything if math.isfinite(value)]
    infinite = any(map(math.isinf, everything))
    right = WIDTH - RIGHT - GUTTER * infinite
    share = METRICS[metric].unit == "" and METRICS[metric].best == "high"
    scale = ticks(0, 1) if share or not finite else ticks(min(0, *finite), max(finite))
    low, high = scale[0], scale[-1]
    label = LABEL if len(values) > 1 else 0
    infinite_x = float(WIDTH - RIGHT - RADIUS) if infinite else None

    def x_of(value: float) -> float:
        if math.isinf(value) and infinite_x is not None:
            return infinite_x
        return round(LEFT + (right - LEFT) * (value - low) / (high - low), 1)

    lanes = []
    for i, (method, cases) in enumerate(values.items()):
        top = TOP + label + i * (label + STRIP)
        known = sorted((value, case) for case, value in cases.items() if not math.isnan(value))
        places = swarm([x_of(value) for value, _ in known], top + STRIP / 2)
        titles = [f"{case}: {spell(metric, value)}" for value, case in known]
        points = [Point(x, y, title) for (x, y), title in zip(places, titles, strict=True)]
        quartiles = [quantile([value for value, _ in known], q) for q in (0.25, 0.5, 0.75)]
        box = (x_of(quartiles[0]), x_of(quartiles[1]), x_of(quartiles[2])) if known else None
        lanes.append(Lane(method, top, points, box, _in_words(metric, list(cases.values()), quartiles)))
    unit = METRICS[metric].unit
    texts = "; ".join(f"{lane.name}: {lane.text}" for lane in lanes)
    return Distribution(
        metric,
        TOP + len(lanes) * (label + STRIP) + BOTTOM,
        lanes,
        [(x_of(value), f"{value:.10g}") for value in scale],
        infinite_x,
        f"{metric} in {unit}" if unit else metric,
        f"{metric} of every case. {texts}",
    )


def _in_words(metric: str, values: Sequence[float], quartiles: Sequence[float]) -> str:
    """``median 0.8123, quartiles 0.7000 to 0.9000; 9 cases, 1 infinite``; undefined ones are counted last."""
    infinite, undefined = sum(map(math.isinf, values)), sum(map(math.isnan, values))
    first, median, third = (spell(metric, value) for value in quartiles)
    counts = [f"{len(values)} case{'s' * (len(values) != 1)}"]
    counts += [f"{infinite} infinite"] if infinite else []
    counts += [f"{undefined} undefined (not drawn)"] if undefined else []
    shown = "" if undefined == len(values) else f"median {median}, quartiles {first} to {third}; "
    return shown + ", ".join(counts)


def quantile(ordered: Sequence[float], q: float) -> float:
    """Of ascending values, the last of which may be infinite; linear between neighbours, nan of nothing."""
    if not ordered:
        return math.nan
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    share = position - below
    if share == 0 or ordered[below] == ordered[below + 1]:
        return ordered[below]
    return ordered[below] + share * (ordered[below + 1] - ordered[below])


def swarm(places: Sequence[float], centre: float) -> list[tuple[float, float]]:
    """Places along the strip, with points that would cover each other moved up and down in turn."""
    columns: dict[int, list[int]] = {}
    for i, x in enumerate(places):
        columns.setdefault(round(x / (2 * RADIUS)), []).append(i)
    heights = [centre] * len(places)
    for members in columns.values():
        step = min(2 * RADIUS, (STRIP / 2 - RADIUS) / max(len(members) // 2, 1))
        for order, i in enumerate(members):
            heights[i] = round(centre + step * ((order + 1) // 2) * (1 if order % 2 else -1), 1)
    return list(zip(places, heights, strict=True))
