from __future__ import annotations

import math
from pathlib import Path

import pytest
from report_toy import make_result

from nnunet_ext.evaluation.report.comparison import describe_comparison, signed, spell_p
from nnunet_ext.evaluation.report.inputs import Evaluated


def methods(**scores):
    return {
        name: [Evaluated(name, Path(name), make_result({f"c{i}": v for i, v in enumerate(values)}))]
        for name, values in scores.items()
    }


GOOD, POOR = [0.8 + i / 100 for i in range(12)], [0.5 + i / 200 for i in range(12)]


def test_best_and_second_are_marked():
    (table,) = describe_comparison(methods(poor=POOR, good=GOOD, worst=[0.1] * 12)).tables
    row = table.ranked[0]
    assert (row.label, row.direction) == ("DSC", "higher is better")
    assert [cell.mark for cell in row.cells] == ["2nd", "best", ""]
    assert row.cells[0].mean == "0.5275"
    two = describe_comparison(methods(poor=POOR, good=GOOD)).tables[0].ranked[0]
    assert [cell.mark for cell in two.cells] == ["", "best"]
    alike = describe_comparison(methods(a=GOOD, b=GOOD)).tables[0].ranked[0]
    assert [cell.mark for cell in alike.cells] == ["", ""]


def test_infinite_and_undefined_cases_are_counted():
    (table,) = describe_comparison(methods(a=[0.0, math.nan, *POOR], b=[0.5, math.nan, *GOOD])).tables
    row = next(row for row in table.ranked if row.label == "HD95")
    assert [cell.left_out for cell in row.cells] == ["1 inf., 1 undef.", "1 undef."]
    assert next(test for test in table.tests if test.label == "HD95").pairs == "13 of 14"


def test_a_clear_difference_is_named():
    page = describe_comparison(methods(poor=POOR, good=GOOD))
    test = page.tables[0].tests[0]
    assert (test.label, test.pair, test.verdict) == ("DSC", "good − poor", "good better")
    assert test.difference.startswith("+0.3")
    assert page.conclusions[0].startswith("good against poor: good is better in DSC, ")
    distance = next(test for test in page.tables[0].tests if test.label == "HD95")
    assert distance.difference.startswith("−") and distance.verdict == "good better"


def test_no_difference_is_named_too():
    (sentence,) = describe_comparison(methods(a=GOOD, b=GOOD)).conclusions
    assert sentence == "b against a: no significant difference in 8 of 8 tests."


def test_what_cannot_be_compared_is_a_sentence():
    page = describe_comparison(methods(a=GOOD, b=[0.5]))
    assert page.comparison is None and page.note.startswith("These evaluations cannot be compared: ")


@pytest.mark.parametrize(("value", "text"), [(math.nan, "–"), (0.0004, "< 0.001"), (0.05, "0.050"), (1.0, "1.000")])
def test_p(value, text):
    assert spell_p(value) == text


@pytest.mark.parametrize(("value", "text"), [(math.nan, "–"), (0.5, "+0.5000"), (-0.5, "−0.5000")])
def test_signed(value, text):
    assert signed("DSC", value) == text
