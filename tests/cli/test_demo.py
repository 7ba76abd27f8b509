import json
import signal
from pathlib import Path

import pytest

from nnunet_ext.cli.main import build_parser, main


def test_defaults():
    args = build_parser(["demo"]).parse_args(["demo"])
    assert (args.o, args.device) == (Path("demo_output"), "cpu")


def test_a_folder_in_use_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("nnunet_ext.phantom.demo.find_program", lambda name: name)
    (tmp_path / "mine").write_text("precious")
    before = signal.getsignal(signal.SIGTERM)
    assert main(["demo", "-o", str(tmp_path)]) == 1
    assert signal.getsignal(signal.SIGTERM) is before, "forked workers of others would inherit it"
    error = capsys.readouterr().err
    assert "nnunet_ext demo: error: -o" in error
    assert "is not empty" in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_the_whole_demo(tmp_path, capsys):
    """The promise of ``make demo``: it ends, it segments, and it leaves a report."""
    out = tmp_path / "demo"
    assert main(["demo", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"report: {out / 'report.html'}" in printed
    assert (out / "report.html").stat().st_size > 10_000
    dice = json.loads((out / "predictions" / "evaluation.json").read_text())["summary"]["lesion"]["DSC"]
    assert dice["n"] == 3
    assert dice["mean"] > 0.5
