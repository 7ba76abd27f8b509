from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from report_toy import make_result

from nnunet_ext.evaluation.metrics import METRICS
from nnunet_ext.evaluation.report.evaluation import (
    ALWAYS_SHOWN,
    COUNTS,
    GROUPS,
    MAX_CLASSES,
    MAX_WIDE_ROWS,
    MEAN_TITLE,
    case_rows,
    describe_methods,
    evaluate_command,
    find_failures,
    left_out_cases,
    listed,
    merge_repeats,
    spell_cell,
    summary_tables,
    switched_columns,
    table_columns,
    uneven_cases,
)
from nnunet_ext.evaluation.report.inputs import Evaluated
from nnunet_ext.evaluation.results import VOLUMES


def evaluated(scores, name="A", folder="", **header):
    return Evaluated(name, Path(folder), replace(make_result(scores, folder=folder), **header))


def test_every_metric_has_a_column_and_a_group():
    keys = [column.key for column in table_columns()]
    assert sorted(keys) == sorted([*METRICS, *VOLUMES, *COUNTS])
    assert sorted(metric for _, members in GROUPS.values() for metric in members) == sorted(METRICS)


def test_columns_of_a_group_stand_together():
    columns = table_columns()
    assert [column.key for column in columns[:3]] == ["DSC", "NSD", "HD95"]
    for group, (first, last) in switched_columns(columns, 2).items():
        assert {column.group for column in columns[first - 3 : last - 2]} == {group}
    assert sum(last - first + 1 for first, last in switched_columns(columns, 2).values()) == sum(
        column.group != "" for column in columns
    )


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("DSC", 0.5, "0.5000"),
        ("HD95", math.inf, "inf"),
        ("reference_ml", 1.234, "1.23"),
        ("prediction_ml", math.nan, "–"),
        ("missed_lesions", 3.0, "3"),
        ("missed_lesions", 1.5, "1.5"),
    ],
)
def test_cells(key, value, text):
    assert spell_cell(key, value) == text


def test_repeats_are_averaged_and_folds_pooled():
    repeats = [evaluated({"a": 0.5, "b": math.nan}), evaluated({"a": 0.7, "b": 0.4, "c": 0.9}, missing=["c"])]
    merged = merge_repeats(repeats)
    assert {row["case"]: pytest.approx(row["DSC"]) for row in merged.rows} == {"a": 0.6, "b": 0.4, "c": 0.9}
    assert merged.missing == ["c"]
    assert merge_repeats([evaluated({"a": 0.0}), evaluated({"a": 0.5})]).rows[0]["HD95"] == math.inf
    assert merge_repeats(repeats[:1]) is repeats[0].result


def test_failures():
    result = make_result({"missed": 0.0, "good": 0.5, "empty": math.nan, "invented": 0.0, "beside": 0.0})
    rows = {row["case"]: row for row in result.rows}
    rows["invented"].update(TP=0, FN=0, FP=5)
    rows["beside"].update(FP=7)
    (found,) = find_failures([result])
    assert (found.cases, found.present, found.both_empty) == (5, 3, 1)
    assert (found.missed, found.beside, found.invented) == (["missed"], ["beside"], ["invented"])
    assert not found.often_absent
    assert find_failures([make_result({"a": 0.5, "b": math.nan, "c": math.nan})])[0].often_absent


def test_methods_stand_below_each_other():
    methods = describe_methods({name: [evaluated({"b": 0.5, "a": 0.4}, name)] for name in "XY"})
    assert [(name, row["case"]) for name, row in case_rows(methods)] == [("X", "a"), ("Y", "a"), ("X", "b"), ("Y", "b")]
    assert methods[0].failed == []
    assert methods[0].headline[0][1]["DSC"]["mean"] == pytest.approx(0.45)


def test_summaries_add_the_mean_over_classes():
    one = make_result({"a": 0.5})
    two = replace(one, rows=one.rows + make_result({"a": 0.7}, "lung").rows)
    assert [table.title for table in summary_tables(one)] == ["lesion"]
    tables = summary_tables(two)
    assert [table.title for table in tables] == ["lesion", "lung", "Mean over classes"]
    assert tables[2].groups[0][1]["DSC"]["mean"] == pytest.approx(0.6)


def test_left_out_cases(tmp_path):
    for name in ("a", "b", ".c"):
        (tmp_path / f"{name}.nii.gz").touch()
    assert left_out_cases(evaluated({"a": 0.5}, folder=str(tmp_path), only_predicted=True)) == ["b"]
    assert left_out_cases(evaluated({"a": 0.5}, folder=str(tmp_path))) == []
    assert left_out_cases(evaluated({"a": 0.5}, folder="/absent", only_predicted=True)) == []


def test_long_lists_say_how_many_more():
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(i) for i in range(23)]).endswith("18, 19 and 3 more")


def test_evaluate_command():
    found = evaluate_command(evaluated({"a": 0.5}, folder="/out", missing=["a"]))
    assert " ".join(found) == (
        "nnunet_ext evaluate /out /out --surface-definition A --nsd-tolerance 3 --labels lesion --allow-missing"
    )
    named = evaluate_command(evaluated({"a": 0.5}, folder="/out", labels={"liver": 1, "all": [1, 2]}))
    assert named[-4:] == ["--labels", "liver", "--regions", "all=1,2"]
    moved = Evaluated("A", Path("/moved"), make_result({"a": 0.5}, folder="/out"))
    assert evaluate_command(moved)[-2:] == ["-o", "/moved"]


def test_a_case_that_fails_in_one_repeat_has_failed():
    (method,) = describe_methods({"A": [evaluated({"a": 0.0, "b": 0.5}), evaluated({"a": 0.6, "b": 0.5, "c": 0.0})]})
    (found,) = method.failures
    assert found.missed == ["a in 1 of 2 evaluations", "c"]
    assert method.failed == found.failed == ["a", "c"] and method.repeated
    (folds,) = describe_methods({"A": [evaluated({"a": 0.0}), evaluated({"b": 0.5})]})
    assert folds.failures[0].missed == ["a"] and not folds.repeated


def test_missed_in_one_repeat_and_beside_in_the_other_is_one_failed_case():
    other = make_result({"a": 0.0})
    other.rows[0].update(FP=7)
    (found,) = find_failures([make_result({"a": 0.0}), other])
    assert (found.missed, found.beside) == (["a in 1 of 2 evaluations"], ["a in 1 of 2 evaluations"])
    assert found.failed == ["a"]


def test_different_cases_are_said():
    methods = describe_methods({"X": [evaluated({"a": 0.5, "b": 0.4}, "X")], "Y": [evaluated({"a": 0.5}, "Y")]})
    assert "different cases (X 2, Y 1, 1 of them in common)" in uneven_cases(methods)
    assert uneven_cases(methods[:1]) == uneven_cases([]) == ""


def many_classes(count):
    """A result of `count` classes of one case with DSC 0.5."""
    names = [f"class_{i:02d}" for i in range(count)]
    return replace(
        make_result({"a": 0.5}),
        rows=[row for name in names for row in make_result({"a": 0.5}, name).rows],
        labels={name: i + 1 for i, name in enumerate(names)},
    )


def test_of_many_classes_the_mean_and_the_first_are_shown():
    (method,) = describe_methods({"A": [Evaluated("A", Path("a"), many_classes(MAX_CLASSES + 1))]})
    assert [name for name, _ in method.headline] == [MEAN_TITLE, *method.result.classes[:-1]]
    assert [table.title for table in summary_tables(method.result)] == [*method.result.classes[:-1], MEAN_TITLE]
    (method,) = describe_methods({"A": [Evaluated("A", Path("a"), many_classes(MAX_CLASSES))]})
    assert [name for name, _ in method.headline] == method.result.classes


def test_a_long_table_has_only_the_main_columns():
    assert [column.key for column in table_columns(MAX_WIDE_ROWS + 1)] == list(ALWAYS_SHOWN)
    assert len(table_columns(MAX_WIDE_ROWS)) == len(table_columns()) > len(ALWAYS_SHOWN)
