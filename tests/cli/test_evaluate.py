from __future__ import annotations

import argparse
import json
import shutil

import numpy as np
import pytest
import SimpleITK

from nnunet_ext.cli import evaluate
from nnunet_ext.utilities.errors import UsageError


@pytest.fixture
def folders(tmp_path):
    for folder in ("labelsTs", "predictions"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            labels = np.zeros((3, 4, 5), np.uint8)
            labels[1, 1:3, 1:3] = 1
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(labels), str(tmp_path / folder / f"{name}.nii.gz"))
    content = {"labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return str(tmp_path / "labelsTs"), str(tmp_path / "predictions")


def run(*arguments):
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    parser.add_argument("--quiet", action="store_true")
    return evaluate.run(parser.parse_args(["-np", "1", *arguments]))


def test_prints_a_table_and_writes_beside_the_predictions(folders, tmp_path, capsys):
    assert run(*folders) == 0
    printed = capsys.readouterr().out
    assert "2 cases" in printed and "1.0000" in printed and "metrics.csv" in printed
    written = {file.name for file in (tmp_path / "predictions").iterdir()} - {"a.nii.gz", "b.nii.gz"}
    assert written == {"metrics.csv", "evaluation.json", "summary.json"}  # and no journal


def test_options_reach_the_evaluation(folders, tmp_path, capsys):
    options = ("--regions", "whole=1", "--labels", "1", "--nsd-tolerance", "1.5", "--surface-definition", "C")
    run(*folders, *options)
    printed = capsys.readouterr().out
    assert "NSD at 1.5 mm, surface definition C" in printed and "\nwhole " in printed and "\nlesion " in printed


def test_a_full_disk_keeps_the_finished_cases(folders, tmp_path, monkeypatch):
    from nnunet_ext.evaluation.results import EvaluationResult

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EvaluationResult, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run(*folders)
    assert len((tmp_path / "predictions" / ".evaluation_unfinished.jsonl").read_text().split()) > 2


def test_output_folder_and_quiet(folders, tmp_path, capsys):
    assert run(*folders, "-o", str(tmp_path / "new" / "folder"), "--quiet") == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    assert (tmp_path / "new" / "folder" / "metrics.csv").is_file()


def test_says_what_was_left_out(folders, tmp_path, capsys):
    (tmp_path / "predictions" / "a.nii.gz").unlink()
    with pytest.raises(UsageError, match="1 of 2 references"):
        run(*folders)
    run(*folders, "--only-predicted")
    assert "restricted to the 1 cases" in capsys.readouterr().out
    run(*folders, "--allow-missing")
    assert "1 cases scored as empty: a" in capsys.readouterr().out


def test_the_two_flags_exclude_each_other(folders, capsys):
    with pytest.raises(SystemExit):
        run(*folders, "--only-predicted", "--allow-missing")
    assert "not allowed with" in capsys.readouterr().err


def test_a_folder_of_subsets_gets_one_table(folders, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("T1", "T1+T2"):
        shutil.copytree(folders[1], out / name)
        shutil.copy(tmp_path / "dataset.json", out / name)
    (out / "T2").mkdir()
    subsets = {name: name.split("+") for name in ("T1", "T2", "T1+T2")}
    (out / "subsets.json").write_text(json.dumps({"modalities": ["T1", "T2"], "subsets": subsets, "model": {}}))
    assert run(folders[0], str(out), "--only-predicted") == 0
    printed = capsys.readouterr().out
    assert "T1+T2 (3 of 3)" in printed and "average" in printed and f"wrote {out / 'subsets.csv'}" in printed
    assert [line.split()[:3] for line in printed.splitlines() if line.startswith(("●", "○"))][:3] == [
        ["●", "○", "2"],
        ["○", "●", "0"],
        ["●", "●", "2"],
    ]
    assert run(folders[0], str(out), "--only-predicted", "--quiet") == 0
    assert capsys.readouterr().out == ""
    with pytest.raises(UsageError, match=r"have no prediction in .*T2|T2 has no files"):
        run(folders[0], str(out))
