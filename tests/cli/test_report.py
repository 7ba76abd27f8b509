from __future__ import annotations

import argparse
import json

import pytest
from report_toy import make_result

from nnunet_ext.cli import compare, report
from nnunet_ext.utilities.errors import UsageError


def run(*arguments):
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    parser.add_argument("--quiet", action="store_true")
    return report.run(parser.parse_args(arguments))


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "Dataset001_A" / "nnUNetTrainer__nnUNetPlans__2d"
    (folder / "fold_all").mkdir(parents=True)
    (folder / "plans.json").write_text("{}")
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "a": 1}, "file_ending": ".png"}))
    return folder


def test_writes_the_page(model, tmp_path, capsys):
    output = tmp_path / "new" / "page.html"
    assert run(str(model), "-f", "all", "-o", str(output)) == 0
    assert capsys.readouterr().out == f"wrote {output}\n"
    assert output.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_quiet_and_default_name(model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(str(model), "-f", "all", "--quiet")
    assert capsys.readouterr().out == ""
    assert (tmp_path / "report.html").is_file()


def test_wrong_fold(model):
    with pytest.raises(UsageError, match="folds here: all"):
        run(str(model), "-f", "0")


def test_several_named_evaluations(tmp_path, capsys):
    for name, score in (("x", 0.5), ("y", 0.75)):
        make_result({"case_1": score, "case_2": score}).save(tmp_path / name)
    output = tmp_path / "page.html"
    assert run(f"nnU-Net={tmp_path / 'x'}", f"UCI={tmp_path / 'y'}", "-o", str(output)) == 0
    assert capsys.readouterr().out == f"wrote {output}\n"
    assert "Comparison of nnU-Net and UCI" in output.read_text(encoding="utf-8")


def test_options_of_the_comparison(tmp_path):
    for name, score in (("x", 0.5), ("y", 0.75)):
        make_result({"case_1": score, "case_2": score}).save(tmp_path / name)
    (tmp_path / "cases.csv").write_text("case,size\ncase_1,1\ncase_2,2\n")
    output, folders = tmp_path / "page.html", [str(tmp_path / name) for name in "xy"]
    options = ["--metrics", "NSD", "--test", "t", "--strata", str(tmp_path / "cases.csv"), "--by", "size"]
    assert run(*folders, "-o", str(output), *options) == 0
    page = output.read_text(encoding="utf-8")
    assert "Paired t-test" in page and "size 2 (n = 1)" in page
    with pytest.raises(UsageError, match="belong together"):
        run(*folders, "--by", "size")
    with pytest.raises(UsageError, match="no metric Dice"):
        run(*folders, "--metrics", "Dice")


def test_comparison_options_are_those_of_compare():
    found = []
    for command in (report, compare):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        actions = {action.option_strings[-1]: action for action in parser._actions if action.option_strings}
        found.append(actions)
    for flag in ("--metrics", "--test", "--all-pairs", "--strata", "--by", "--bins"):
        ours, theirs = (actions[flag] for actions in found)
        assert (ours.help, ours.default, ours.choices) == (theirs.help, theirs.default, theirs.choices)
