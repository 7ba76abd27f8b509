from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ext.evaluation.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    line_chart,
    read_progress,
    svg_path,
    ticks,
    training_charts,
)


def test_read_progress(tmp_path):
    path = tmp_path / "progress.csv"
    assert read_progress(path) == {}
    path.write_text("epoch,loss/ct\n0,nan\n1,0.5\n2,\n3,broken\n")
    progress = read_progress(path)
    assert progress["epoch"] == [0, 1, 2, 3]
    assert progress["loss/ct"][1] == 0.5
    assert [math.isnan(value) for value in progress["loss/ct"]] == [True, False, True, True]
    path.write_text("epoch,loss/ct\n")
    assert read_progress(path) == {}


def test_groups_of_charts():
    values = [1.0, 2.0]
    progress = dict.fromkeys(
        ["epoch", "train_losses", "val_losses", "lrs", "loss/ct", "loss/xray", "prototypes/ct_used", "new/a"], values
    )
    charts = training_charts(progress | {"mean_fg_dice": [math.nan] * 2})
    assert [(chart.title, [line.name for line in chart.lines]) for chart in charts] == [
        ("Loss", ["training", "validation"]),
        ("Named losses (training)", ["ct", "xray"]),
        ("Prototypes in use", ["ct_used"]),
        ("New", ["a"]),
        ("Learning rate", ["learning rate"]),
    ]
    assert training_charts({}) == []


def test_line_chart_fills_the_frame():
    chart = line_chart("Loss", {"training": [0.0, 1.0], "validation": [math.nan, 0.5]})
    training, validation = chart.lines
    assert training.path == f"M{LEFT}.0 {HEIGHT - BOTTOM}.0L{WIDTH - RIGHT}.0 {TOP}.0"
    assert validation.path == f"M{WIDTH - RIGHT}.0 {(TOP + HEIGHT - BOTTOM) / 2:.1f}h0"
    assert [text for _, text in chart.y_ticks] == ["0", "0.5", "1"]
    assert [text for _, text in chart.x_ticks] == ["0", "1"]
    assert (training.last, training.lowest, training.highest) == ("1", "0", "1")
    assert chart.description == (
        "Loss over 2 epochs: training ends at 1, from 0 to 1; validation ends at 0.5, from 0.5 to 0.5"
    )


def test_a_single_epoch_and_a_constant_series():
    chart = line_chart("Learning rate", {"learning rate": [0.01]})
    assert chart.lines[0].path.endswith("h0")
    assert len(line_chart("Zero", {"a": [0.0, 0.0]}).y_ticks) >= 2


def test_gaps_lift_the_pen():
    assert svg_path([(0, 0), (1, 1), None, (3, 3), None]) == "M0.0 0.0L1.0 1.0M3.0 3.0h0"
    assert svg_path([None]) == ""


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_are_round_and_enclose(low, span):
    high = low + span
    found = ticks(low, high)
    step = found[1] - found[0]
    assert 2 <= len(found) <= 7
    assert found[0] <= low + step * 1e-6 and found[-1] >= high - step * 1e-6
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - round_number) for round_number in (1, 2, 5, 10)) < 1e-3


@pytest.mark.parametrize(("low", "high", "expected"), [(0, 1, [0, 0.5, 1]), (0.1, 7.9, [0, 2, 4, 6, 8])])
def test_ticks_by_hand(low, high, expected):
    assert ticks(low, high) == expected
