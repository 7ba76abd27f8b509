from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from report_toy import make_result

from nnunet_ext.evaluation.report.comparison import ComparisonOptions, describe_comparison, signed
from nnunet_ext.evaluation.report.evaluation import MAX_CLASSES
from nnunet_ext.evaluation.report.inputs import Evaluated
from nnunet_ext.utilities.errors import UsageError


def methods(**scores):
    return {
        name: [Evaluated(name, Path(name), make_result({f"c{i}": v for i, v in enumerate(values)}))]
        for name, values in scores.items()
    }


GOOD, POOR = [0.8 + i / 100 for i in range(12)], [0.5 + i / 200 for i in range(12)]


def test_best_and_second_are_marked():
    (table,) = describe_comparison(methods(poor=POOR, good=GOOD, worst=[0.1] * 12)).strata[0].tables
    row = table.ranked[0]
    assert (row.label, row.direction) == ("DSC", "higher is better")
    assert [cell.mark for cell in row.cells] == ["2nd", "best", ""]
    assert row.cells[0].mean == "0.5275"
    two = describe_comparison(methods(poor=POOR, good=GOOD)).strata[0].tables[0].ranked[0]
    assert [cell.mark for cell in two.cells] == ["", "best"]
    alike = describe_comparison(methods(a=GOOD, b=GOOD)).strata[0].tables[0].ranked[0]
    assert [cell.mark for cell in alike.cells] == ["", ""]


def test_infinite_and_undefined_cases_are_counted():
    (table,) = describe_comparison(methods(a=[0.0, math.nan, *POOR], b=[0.5, math.nan, *GOOD])).strata[0].tables
    row = next(row for row in table.ranked if row.label == "HD95")
    assert [cell.left_out for cell in row.cells] == ["(1 inf., 1 undef.)", "(1 undef.)"]
    assert next(test for test in table.tests if test.label == "HD95").pairs == "13 of 14"


def test_a_clear_difference_is_named():
    page = describe_comparison(methods(poor=POOR, good=GOOD))
    test = page.strata[0].tables[0].tests[0]
    assert (test.label, test.pair, test.verdict) == ("DSC", "good − poor", "good better")
    assert test.difference.startswith("+0.3")
    assert page.strata[0].conclusions[0].startswith("good against poor: good is better in DSC, ")
    distance = next(test for test in page.strata[0].tables[0].tests if test.label == "HD95")
    assert distance.difference.startswith("−") and distance.verdict == "good better"


def test_no_difference_is_named_too():
    (sentence,) = describe_comparison(methods(a=GOOD, b=GOOD)).strata[0].conclusions
    assert sentence == "b against a: no significant difference in 8 of 8 tests."


def test_what_cannot_be_compared_is_a_sentence():
    page = describe_comparison(methods(a=GOOD, b=[0.5]))
    assert page.comparison is None and page.note.startswith("These evaluations cannot be compared: ")


@pytest.mark.parametrize(("value", "text"), [(math.nan, "–"), (0.5, "+0.5000"), (-0.5, "−0.5000")])
def test_signed(value, text):
    assert signed("DSC", value) == text


def classes(*names):
    """Two methods, the second better in every class."""
    found = {}
    for name, values in (("poor", POOR), ("good", GOOD)):
        rows = [row for c in names for row in make_result({f"c{i}": v for i, v in enumerate(values)}, c).rows]
        found[name] = [Evaluated(name, Path(name), replace(make_result({"c0": 0.5}), rows=rows))]
    return found


def test_a_class_called_mean_is_no_mean():
    titles = [table.title for table in describe_comparison(classes("mean", "lesion")).strata[0].tables]
    assert titles == ["mean", "lesion"]
    page = describe_comparison(classes("lung", "lesion"))
    assert [table.title for table in page.strata[0].tables] == ["lung", "lesion", "Mean over classes"]
    assert "NSD (mean over classes)" in page.strata[0].conclusions[0]
    assert "NSD (mean);" in describe_comparison(classes("mean", "lesion")).strata[0].conclusions[0]


def test_of_many_classes_the_mean_and_the_first_have_tables():
    names = [f"class_{i:02d}" for i in range(MAX_CLASSES + 3)]
    page = describe_comparison(classes(*names), ComparisonOptions(["DSC"], "t"))
    (stratum,) = page.strata
    assert [table.title for table in stratum.tables] == ["Mean over classes", *names[:-3]]
    assert stratum.conclusions == [
        "good against poor: good is better in DSC (mean over classes); "
        + "; ".join(f"DSC ({name})" for name in names[:-3])
        + "; 3 other classes."
    ]


def test_options_are_those_of_the_comparison(tmp_path):
    strata = tmp_path / "cases.csv"
    strata.write_text("case,size\n" + "".join(f"c{i},{'small' if i < 11 else 'large'}\n" for i in range(12)))
    options = ComparisonOptions(["NSD"], "t", True, strata, "size")
    page = describe_comparison(methods(a=POOR, b=GOOD, c=GOOD), options)
    assert (page.comparison.metrics, page.comparison.test) == (["NSD"], "t")
    assert [stratum.title for stratum in page.strata] == ["", "large (n = 1)", "small (n = 11)"]
    every, one, small = page.strata
    assert [test.pair for test in every.tables[0].tests] == ["b − a", "c − a", "c − b"]
    assert one.conclusions == one.tables[0].tests == []
    assert small.tables[0].tests[0].pairs == "11 of 11"
    assert small.tables[0].ranked[0].cells[0].mean != every.tables[0].ranked[0].cells[0].mean
    expected = ["--metrics", "NSD", "--test", "t", "--all-pairs", "--strata", str(strata), "--by", "size"]
    assert options.arguments == expected
    assert ComparisonOptions().arguments == []


def test_wrong_options_are_errors_not_sentences(tmp_path):
    two = methods(a=POOR, b=GOOD)
    with pytest.raises(UsageError, match="no metric Dice"):
        describe_comparison(two, ComparisonOptions(["Dice"]))
    with pytest.raises(UsageError, match="absent.csv does not exist"):
        describe_comparison(two, ComparisonOptions(strata=tmp_path / "absent.csv", by="size"))
