from __future__ import annotations

import math
import re
import shlex
from dataclasses import replace
from html import unescape

import pytest
from report_toy import make_result, parsed, visible_text

from nnunet_ext.evaluation.report.inputs import read_inputs
from nnunet_ext.evaluation.report.page import write_report
from nnunet_ext.evaluation.subsets import Subsets
from nnunet_ext.utilities.errors import UsageError

SUBSETS = {"T1": ["T1"], "<b>": ["<b>"], "T1+<b>": ["T1", "<b>"]}


def make_subsets(folder, scores=(0.25, None, 0.75), reference="GT"):
    """Evaluations of two cases with these DSC; None: the subset was not evaluated."""
    Subsets(["T1", "<b>"], SUBSETS).save(folder)
    for name, score in zip(SUBSETS, scores, strict=True):
        if score is not None:
            result = replace(make_result({"a": score, "b": 0.0}), reference=reference, prediction=str(folder / name))
            result.save(folder / name)
    return folder


def report(inputs, tmp_path):
    write_report(inputs, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_folder_of_subsets_is_shown_by_its_largest(tmp_path):
    out = make_subsets(tmp_path / "out")
    (found,) = read_inputs([out]).evaluations
    assert (found.name, found.folder.name) == ("out", "T1+<b>")
    assert found.subsets.cell("T1", "lesion", "DSC") == "0.1250"
    (found,) = read_inputs([out / "T1"]).evaluations
    assert found.subsets is not None and found.folder.name == "T1"
    (found,) = read_inputs([make_subsets(tmp_path / "single", (0.5, 0.5, None))]).evaluations
    assert found.folder.name == "<b>"


def test_subsets_without_evaluation_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"run: nnunet_ext evaluate GT PRED -o .*out"):
        read_inputs([make_subsets(tmp_path / "out", (None, None, None))])


def test_the_section(tmp_path):
    html = report([make_subsets(tmp_path / "out")], tmp_path)
    tags, text = parsed(html), visible_text(html)
    assert "<h1>out</h1>" in html and 'href="#subsets"' in html
    assert "The rest of this page is about out with T1+&lt;b&gt;." in html
    rows = re.findall("<tr>(.*?)</tr>", html[html.index('class="subsets"') : html.index("</tfoot>")], re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    assert cells[1:] == [
        ["T1", "●", "○", "2", "0.1250", "7.50†"],
        ["&lt;b&gt;", "○", "●", "0", "–", "–"],
        ["T1+&lt;b&gt;", "●", "●", "2", "0.3750", "2.50†"],
        ["Average", "", "", "", "0.2500", "5.00"],
    ]
    assert "† leaves out cases with an infinite distance" in text and "rows do not compare" in text
    assert all("scope" in attributes for tag, attributes in tags if tag == "th")


def test_other_evaluations_have_no_section(tmp_path):
    make_result({"a": 0.5}).save(tmp_path / "out")
    assert "Missing modalities" not in report([tmp_path / "out"], tmp_path)


def test_methods_and_repeats_have_tables_of_their_own(tmp_path):
    folders = [make_subsets(tmp_path / name, (0.5, 0.5, score)) for name, score in (("x", 0.6), ("y", 0.7), ("z", 0.8))]
    html = report([f"A={folders[0]}", f"A={folders[1]}", f"B={folders[2]}"], tmp_path)
    parsed(html)
    titles = re.findall(
        r"<caption>(\S[^<]*) <small>[^<]*</small></caption>\s*<thead><tr><th scope=\"col\">Subset", html
    )
    assert titles == ["A, x", "A, y", "B"]
    both = report([f"T1={folders[0]}/T1", f"All={folders[0]}"], tmp_path)
    assert both.count('class="subsets"') == 1  # of one prediction there is one table


def test_many_classes_are_cut_but_for_their_mean(tmp_path):
    Subsets(["T1", "<b>"], SUBSETS).save(tmp_path / "out")
    names = [f"class_{i:02d}" for i in range(20)]
    rows = [row for name in names for row in make_result({"a": 0.5, "b": math.nan}, name).rows]
    labels = {name: i + 1 for i, name in enumerate(names)}
    replace(make_result({"a": 0.5}), rows=rows, labels=labels).save(tmp_path / "out" / "T1")
    html = report([tmp_path / "out"], tmp_path)
    head = html[html.index('class="subsets"') :]
    assert re.findall(r"(\w+)<br><small>DSC", head[: head.index("</thead>")]) == [*names[:12], "mean"]


def test_the_commands_evaluate_all_subsets_again(tmp_path):
    out = make_subsets(tmp_path / "out")
    commands = [shlex.split(unescape(c)) for c in re.findall("<li><code>(.*?)</code>", report([out], tmp_path))]
    assert commands[0][:4] == ["nnunet_ext", "evaluate", "GT", str(out)] and "-o" not in commands[0]
