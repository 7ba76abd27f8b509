from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_toy import make_result

from nnunet_ext.evaluation.report.charts import WIDTH
from nnunet_ext.evaluation.report.distributions import (
    LEFT,
    RADIUS,
    RIGHT,
    STRIP,
    distribution,
    distribution_charts,
    quantile,
    swarm,
)
from nnunet_ext.evaluation.report.evaluation import MAX_CLASSES, MEAN_TITLE


def test_a_chart_per_class_and_metric_with_a_lane_per_method():
    results = {"A": make_result({"a": 0.5, "b": 0.7}), "B": make_result({"a": 0.9})}
    charts = distribution_charts(results)
    assert list(charts) == ["lesion"]
    assert [chart.title for chart in charts["lesion"]] == ["DSC", "NSD", "HD95"]
    assert [(lane.name, len(lane.points)) for lane in charts["lesion"][0].lanes] == [("A", 2), ("B", 1)]


def test_shares_span_the_whole_axis():
    chart = distribution("DSC", {"A": {"a": 0.0, "b": 1.0, "c": 0.5}})
    (lane,) = chart.lanes
    assert [(point.title, point.x) for point in lane.points] == [
        ("a: 0.0000", LEFT),
        ("c: 0.5000", WIDTH / 2),
        ("b: 1.0000", WIDTH - RIGHT),
    ]
    assert lane.box[1] == WIDTH / 2
    assert chart.infinite_x is None and chart.axis == "DSC"
    assert lane.text == "median 0.5000, quartiles 0.2500 to 0.7500; 3 cases"


def test_infinite_and_undefined_cases_are_stated():
    chart = distribution("HD95", {"A": {"a": 2.0, "b": 4.0, "c": math.inf, "d": math.nan}})
    (lane,) = chart.lanes
    assert [point.title for point in lane.points] == ["a: 2.00", "b: 4.00", "c: inf"]
    assert lane.points[2].x == chart.infinite_x > lane.points[1].x
    assert lane.text == "median 4.00, quartiles 3.00 to inf; 4 cases, 1 infinite, 1 undefined (not drawn)"
    assert lane.box[2] == chart.infinite_x
    assert chart.axis == "HD95 in mm" and lane.text in chart.description


def test_nothing_defined():
    (lane,) = distribution("HD95", {"A": {"a": math.nan}, "B": {}}).lanes
    assert (lane.points, lane.box, lane.text) == ([], None, "1 case, 1 undefined (not drawn)")
    (lane,) = distribution("HD95", {"A": {"a": math.inf}}).lanes
    assert lane.text == "median inf, quartiles inf to inf; 1 case, 1 infinite"


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.sampled_from([0.25, 0.5, 0.75]))
def test_quantile_is_the_usual_one(values, q):
    assert quantile(sorted(values), q) == pytest.approx(np.quantile(values, q), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(
    ("ordered", "q", "expected"),
    [([1, 2, math.inf, math.inf], 0.5, math.inf), ([1, 2, math.inf], 0.5, 2), ([math.inf, math.inf], 0.25, math.inf)],
)
def test_quantile_of_infinite_values(ordered, q, expected):
    assert quantile(ordered, q) == expected


def test_quantile_of_nothing():
    assert math.isnan(quantile([], 0.5))


@given(st.lists(st.floats(LEFT, WIDTH - RIGHT), max_size=200))
def test_swarm_stays_in_its_strip(places):
    found = swarm(places, 50)
    assert [x for x, _ in found] == places
    assert all(abs(y - 50) <= STRIP / 2 - RADIUS + 0.1 for _, y in found)


def test_equal_values_are_drawn_apart():
    assert len({y for _, y in swarm([100.0] * 6, 50)}) == 6


def test_of_many_classes_the_mean_and_the_first_are_drawn():
    rows = [row for i in range(MAX_CLASSES + 1) for row in make_result({"a": i / 100}, f"class_{i:02d}").rows]
    charts = distribution_charts({"A": replace(make_result({"a": 0.5}), rows=rows)})
    assert list(charts) == [MEAN_TITLE, *(f"class_{i:02d}" for i in range(MAX_CLASSES))]
    assert [point.title for point in charts[MEAN_TITLE][0].lanes[0].points] == ["a: 0.0600"]
