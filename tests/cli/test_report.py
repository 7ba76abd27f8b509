from __future__ import annotations

import argparse
import json

import pytest
from report_toy import make_result

from nnunet_ext.cli import report
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
