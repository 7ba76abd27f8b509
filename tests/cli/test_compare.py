from __future__ import annotations

import argparse
import csv

import numpy as np
import pytest
from toy_results import make_column

from nnunet_ext.cli import compare
from nnunet_ext.utilities.errors import UsageError

A = np.random.default_rng(0).uniform(0.4, 0.6, 12)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, column in {"a": A, "b": A + 0.1, "b2": A + 0.3, "deep/a": A + 0.2, "x=1": A + 0.2}.items():
        make_column("DSC", column).save(tmp_path / name)
    (tmp_path / "cases.csv").write_text("case,size\n" + "".join(f"case_{i:02d},{i}\n" for i in range(12)))
    return tmp_path


def run(*arguments):
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    parser.add_argument("--quiet", action="store_true")
    return compare.run(parser.parse_args([*arguments]))


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_prints_tables_and_writes_nothing(folders, capsys):
    before = set(folders.rglob("*"))
    assert run("a", "b", "--metrics", "DSC", "--resamples", "200") == 0
    printed = capsys.readouterr().out
    assert "all cases (n = 12): lesion" in printed and "b - a" in printed and "Wilcoxon" in printed
    assert printed.splitlines()[-1] == "nothing written; -o FOLDER writes CSV, Markdown and LaTeX tables"
    assert set(folders.rglob("*")) == before


def test_output_folder_and_quiet(folders, capsys):
    run("a", "b", "--metrics", "DSC", "-o", "out", "--quiet", "--test", "t", "--seed", "3", "--resamples", "200")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    (row,) = read(folders / "out" / "comparison.csv")
    assert (row["first"], row["second"], row["test"], row["seed"], row["resamples"]) == ("a", "b", "t", "3", "200")


def test_a_name_given_twice_is_one_method_with_repeats(folders):
    run("A=a", "B=b", "B=b2", "--metrics", "DSC", "-o", "out", "--quiet")
    summary = {row["method"]: float(row["mean"]) for row in read(folders / "out" / "summary.csv")}
    assert summary == pytest.approx({"A": A.mean(), "B": A.mean() + 0.2})


def test_strata_and_all_pairs(folders):
    run("a", "b", "C=b2", "--metrics", "DSC", "--strata", "cases.csv", "--by", "size", "--bins", "2", "--all-pairs",
        "-o", "out", "--quiet")  # fmt: skip
    rows = read(folders / "out" / "comparison.csv")
    assert list(dict.fromkeys(row["stratum"] for row in rows)) == ["", "size 0-5", "size 6-11"]
    assert [(row["first"], row["second"]) for row in rows[:3]] == [("a", "b"), ("a", "C"), ("b", "C")]


def test_common_cases(folders, capsys):
    make_column("DSC", A[:10]).save(folders / "short")
    with pytest.raises(UsageError, match="short lacks case_10, case_11"):
        run("a", "short")
    run("a", "short", "--common-cases", "--strata", "cases.csv", "--by", "size", "--metrics", "DSC")
    assert "restricted to the 10 common cases; left out: case_10, case_11" in capsys.readouterr().out


@pytest.mark.parametrize(
    "given, names",
    [
        (["a", "x=1", "new=deep/a"], ["a", "x=1", "new"]),
        (["deep/a", "B=b"], ["a", "B"]),
    ],
)
def test_names_of_folders(folders, given, names):
    run(*given, "--metrics", "DSC", "--resamples", "100", "-o", "out", "--quiet")
    assert [row["method"] for row in read(folders / "out" / "summary.csv")] == names


def test_folders_of_one_name_are_told_apart(folders, capsys):
    run("a", "deep/a", "--metrics", "DSC", "--resamples", "100")
    assert "deep/a" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["A=a", "A=a", "B=b"], r"/a is given twice for A; name it once"),
        (["a", "a"], r"/a is given twice; name it once"),
        (["a", "=b"], "'=b' is not"),
        (["a", "B="], "'B=' is not"),
        (["A=a", "A=b"], "at least two methods"),
        (["a", "none"], "none has no metrics.csv"),
        (["a", "b", "--metrics", "Dice"], "no metric Dice"),
        (["a", "b", "--strata", "cases.csv"], "belong together"),
        (["a", "b", "--by", "size"], "belong together"),
        (["a", "b", "--strata", "cases.csv", "--by", "age"], "no column 'age'"),
        (["a", "b", "--seed", "-1"], "--seed is -1"),
    ],
)
def test_what_cannot_be_compared_is_named(folders, arguments, message):
    with pytest.raises(UsageError, match=message):
        run(*arguments)


def test_help_of_tests_and_metrics_agrees_with_the_code():
    from nnunet_ext.evaluation.comparison.statistics import TESTS
    from nnunet_ext.evaluation.results import TABLE_METRICS

    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    actions = {action.dest: action for action in parser._actions}
    assert actions["test"].choices == tuple(TESTS)
    assert actions["metrics"].help == f"[{' '.join(TABLE_METRICS)}]"
