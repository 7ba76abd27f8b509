from __future__ import annotations

import csv
import math
import re

import numpy as np
import pytest
from toy_results import make_column, make_methods

from nnunet_ext.evaluation.comparison.compare import compare_methods
from nnunet_ext.evaluation.comparison.pairing import Method
from nnunet_ext.evaluation.comparison.tables import (
    definitions,
    latex_text,
    left_out,
    markdown_text,
    metric_header,
    result_row,
    save_tables,
    spell_p,
    table_cell,
    terminal_text,
)
from nnunet_ext.evaluation.metrics import METRICS

INF, NAN = math.inf, math.nan
A = np.random.default_rng(0).uniform(0.4, 0.6, 12)


@pytest.fixture
def three():
    return compare_methods(make_methods("DSC", a=A, b=A + 0.2, c_1=A + 0.1), metrics=["DSC"], resamples=200)


@pytest.fixture
def distances():
    columns = {"a": [*A * 10, INF, INF, NAN], "b": [*A * 10 + 5, 1, 2, NAN]}
    return compare_methods(make_methods("HD95", **columns), metrics=["HD95"], resamples=200)


def test_cell(three, distances):
    cells = [table_cell(three, "", "lesion", "DSC", method) for method in three.methods]
    assert [(cell.best, cell.second, cell.marks) for cell in cells] == [
        (False, False, ""), (True, False, "*"), (False, True, "*"),
    ]  # fmt: skip
    assert cells[1].text == f"{np.mean(A + 0.2):.4f} ± {np.std(A, ddof=1):.4f}"
    assert table_cell(three, "", "lesion", "DSC", "a", short=True).text == f"{A.mean():.3f} ± {np.std(A, ddof=1):.3f}"
    # Two infinite values: not the best in spite of the smaller mean; and no second best of two methods.
    assert table_cell(distances, "", "lesion", "HD95", "a").marks == "†"
    assert not table_cell(distances, "", "lesion", "HD95", "a").second
    assert table_cell(distances, "", "lesion", "HD95", "b").best


def test_cell_without_a_finite_value():
    found = compare_methods(make_methods("HD95", a=[INF, NAN], b=[NAN, NAN]), metrics=["HD95"])
    assert [table_cell(found, "", "lesion", "HD95", method).text for method in "ab"] == ["inf", "–"]
    assert not table_cell(found, "", "lesion", "HD95", "b").best


def test_asterisk_is_against_the_baseline_only():
    columns = {"a": A, "b": A + 0.0001 * np.array([1, -1] * 6), "c": A - 0.2}
    found = compare_methods(make_methods("DSC", **columns), metrics=["DSC"], all_pairs=True)
    assert [table_cell(found, "", "lesion", "DSC", method).marks for method in "abc"] == ["", "", "*"]


def test_headers_say_which_direction_is_better():
    assert [metric_header(m) for m in ("DSC", "HD95", "VE", "RVE")] == [
        "DSC ↑",
        "HD95 ↓ (mm)",
        "|VE| ↓ (mL)",
        "|RVE| ↓",
    ]


def test_counts_of_what_is_left_out(distances, three):
    assert left_out(distances, "", "lesion") == [
        "infinite, left out of the mean: HD95: a 2, b 0",
        "undefined, left out of the mean: HD95: a 1, b 1",
    ]
    assert left_out(three, "", "lesion") == []


def test_definitions_name_everything_needed_to_repeat(three):
    text = "\n".join(definitions(three))
    for part in (
        "12 cases", "baseline a", "Wilcoxon", "Holm", "2 x 1 = 2", "seed 0", "200 resamples", "rank-biserial",
        "surface definition A", "NSD tolerance 3 mm",
    ):  # fmt: skip
        assert part in text
    signed = compare_methods(make_methods("VE", a=A, b=-A), metrics=["VE"], test="t", resamples=100)
    assert "absolute values of VE" in "\n".join(definitions(signed)) and "d_z" in "\n".join(definitions(signed))


def test_result_row(three, distances):
    row = result_row(three.tests[0])
    assert row[:6] == ["DSC", "lesion", "b - a", "12", "+0.2000", "[+0.2000, +0.2000]"]
    assert row[6:] == ["+1.00", "0.0005", "0.0010 *", "b"]
    assert result_row(distances.tests[0])[4] == "+5.00"
    nothing = compare_methods(make_methods("DSC", a=[NAN] * 3, b=A[:3]), metrics=["DSC"]).tests[0]
    assert result_row(nothing)[3:] == ["0", "–", "[–, –]", "–", "–", "–", "–"]


def test_tiny_p_values_are_not_zero():
    found = compare_methods(make_methods("DSC", a=np.arange(40) / 50, b=np.arange(40) / 45 + 0.1), metrics=["DSC"])
    assert result_row(found.tests[0])[7] == "<0.0001"


def test_terminal_starts_with_all_cases_and_is_aligned():
    strata = {f"case_{i:02d}": "odd" if i % 2 else "even" for i in range(12)}
    found = compare_methods(make_methods("DSC", a=A, method_b=A + 0.2), metrics=["DSC", "HD95"], strata=strata)
    lines = terminal_text(found).splitlines()
    assert lines[0] == "all cases (n = 12): lesion"
    assert len({len(line) for line in lines[1:4]}) == 1 and lines[3].startswith("method_b ")
    assert "•*" in lines[3] and "•" not in lines[2]
    titles = [line for line in lines if re.match(r"tests, ", line)]
    assert titles == ["tests, all cases (n = 12)", "tests, even (n = 6)", "tests, odd (n = 6)"]
    assert max(map(len, lines)) <= 120


def test_terminal_ends_with_the_notes(distances):
    assert "note: pairs with an infinite distance" in terminal_text(distances)


def test_markdown(three):
    lines = markdown_text(three).splitlines()
    assert lines[0] == "# Comparison of a, b, c\\_1"
    assert f"| b | **{np.mean(A + 0.2):.4f} ± {np.std(A, ddof=1):.4f}**\\* |" in lines
    assert any(line.startswith("| c\\_1 | <u>0.") and line.endswith("</u>\\* |") for line in lines)
    tables = [line for line in lines if line.startswith("|")]
    assert [line.count(" | ") for line in tables] == [1] * 5 + [9] * 4


def test_markdown_keeps_bars_of_absolute_values_in_their_cell():
    text = markdown_text(compare_methods(make_methods("VE", **{"a|b": A, "c": A * 2}), metrics=["VE"]))
    assert "| lesion | \\|VE\\| ↓ (mL) |" in text and "| a\\|b |" in text


def test_latex_escapes_names_and_closes_what_it_opens():
    names = {r"50%_a&b#$": A, r"x{y}^~\z": A + 0.1}
    columns = [make_column("VE", column, class_name="left_lung") for column in names.values()]
    methods = [Method(name, (column,)) for name, column in zip(names, columns, strict=True)]
    strata = {f"case_{i:02d}": "<2%" if i % 2 else ">=2%" for i in range(12)}
    text = latex_text(compare_methods(methods, metrics=["VE", "HD95"], strata=strata))
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert r"50\%\_a\&b\#\$ & " in code and r"x\{y\}\textasciicircum{}\textasciitilde{}\textbackslash{}z & " in code
    assert r"\textit{left\_lung}" in code and r"\textless{}2\%" in code
    plain = re.sub(r"\\[{}&%$#_]", "", code)
    assert plain.count("{") == plain.count("}") and plain.count("$") % 2 == 0
    assert not re.search(r"[%#]", plain) and "_" not in plain
    depth = np.cumsum([{"{": 1, "}": -1}.get(char, 0) for char in plain])
    assert depth.min() == 0 and depth[-1] == 0
    assert re.findall(r"\\begin{(\w+)}", code) == ["table", "tabular"] * 3
    assert re.findall(r"\\end{(\w+)}", code) == ["tabular", "table"] * 3
    rows = [line for line in plain.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert len(rows) == 9 and all(row.count("&") == 2 for row in rows)
    assert code.isascii()


def test_latex_marks_the_best(three):
    text = latex_text(three)
    assert r"b & \textbf{" in text and r"$\pm$" in text and r"}$^{*}$ \\" in text
    assert r"c\_1 & \underline{" in text and r"DSC $\uparrow$" in text


def test_files(three, tmp_path):
    paths = save_tables(three, tmp_path / "new")
    assert [path.name for path in paths] == ["comparison.csv", "summary.csv", "comparison.md", "comparison.tex"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    with paths[0].open(newline="") as file:
        tests = list(csv.DictReader(file))
    assert len(tests) == 2 and float(tests[0]["p_holm"]) == three.tests[0].p_holm
    assert (tests[0]["favours"], tests[0]["test"], tests[0]["seed"]) == ("b", "wilcoxon", "0")
    with paths[1].open(newline="") as file:
        summaries = list(csv.DictReader(file))
    assert [row["method"] for row in summaries] == ["a", "b", "c_1"]
    assert float(summaries[0]["mean"]) == pytest.approx(A.mean())
    assert paths[2].read_text(encoding="utf-8") == markdown_text(three)


def test_every_metric_has_a_header():
    assert all(metric in metric_header(metric) for metric in METRICS)


def test_nothing_is_best_where_all_are_equal():
    found = compare_methods(make_methods("DSC", a=A, b=A), metrics=["DSC"], resamples=200)
    assert not any(table_cell(found, "", "lesion", "DSC", method).best for method in "ab")
    assert "**" not in markdown_text(found)
    tied = compare_methods(make_methods("DSC", a=A, b=A, c=A - 0.1), metrics=["DSC"], resamples=200)
    assert [table_cell(tied, "", "lesion", "DSC", method).best for method in "abc"] == [True, True, False]


@pytest.mark.parametrize(("value", "text"), [(NAN, "–"), (0.00004, "<0.0001"), (0.05, "0.0500"), (1.0, "1.0000")])
def test_p(value, text):
    assert spell_p(value) == text
