from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import SimpleITK
from toy_results import make_result

from nnunet_ext.evaluation.results import EvaluationResult
from nnunet_ext.evaluation.subsets import Subsets, SubsetTable, all_subsets, evaluate_subsets
from nnunet_ext.utilities.errors import UsageError

TWO = Subsets(["T1", "FLAIR"], {"T1": ["T1"], "FLAIR": ["FLAIR"], "T1+FLAIR": ["T1", "FLAIR"]}, {"trainer": "X"})


def scores(whole, core, distance=2.0):
    """A result of two classes and as many cases as numbers."""
    values = {}
    for i, (first, second) in enumerate(zip(whole, core, strict=True)):
        values[f"c{i}", "whole"] = {"DSC": first, "HD95": distance}
        values[f"c{i}", "core"] = {"DSC": second, "HD95": math.inf if second == 0 else distance}
    return make_result(values)


@pytest.fixture
def table():
    results = {
        "T1": scores([0.5, 0.7], [0.2, 0.0]),
        "FLAIR": scores([0.6, 0.6], [0.4, 0.4], 4.0),
        "T1+FLAIR": scores([0.9, 0.7], [0.5, 0.7], 1.0),
    }
    return SubsetTable(TWO, results)


@pytest.fixture
def predictions(tmp_path):
    """References ``a`` and ``b``, and predictions of three subsets: T1 lacks b, FLAIR has none."""
    labels = np.zeros((3, 8, 9), np.uint8)
    labels[1, 2:6, 2:6] = 1
    (tmp_path / "GT").mkdir()
    for case in "ab":
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(labels), str(tmp_path / "GT" / f"{case}.nii.gz"))
    content = {"labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    for folder, cases in (("T1", "a"), ("FLAIR", ""), ("T1+FLAIR", "ab")):
        (tmp_path / "OUT" / folder).mkdir(parents=True)
        (tmp_path / "OUT" / folder / "dataset.json").write_text(json.dumps(content))
        shifted = np.roll(labels, folder == "T1", axis=2)
        for case in cases:
            SimpleITK.WriteImage(
                SimpleITK.GetImageFromArray(shifted), str(tmp_path / "OUT" / folder / f"{case}.nii.gz")
            )
    TWO.save(tmp_path / "OUT")
    return tmp_path


def evaluate(folder, output=None, **options):
    output = output or folder / "OUT"
    return evaluate_subsets(folder / "GT", folder / "OUT", output, **{"only_predicted": True, "quiet": True} | options)


def test_all_subsets_but_the_empty_one():
    assert all_subsets(3) == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert [len(all_subsets(n)) for n in range(1, 7)] == [1, 3, 7, 15, 31, 63]


def test_the_list_of_subsets_is_sorted_by_size(tmp_path):
    Subsets(["a", "b"], {"a+b": ["a", "b"], "b": ["b"], "a": ["a"]}).save(tmp_path)
    assert list(Subsets.load(tmp_path).subsets) == ["b", "a", "a+b"]
    (tmp_path / "subsets.json").write_text('{"subsets": {}}')
    with pytest.raises(UsageError, match=r"subsets\.json is no list of subsets"):
        Subsets.load(tmp_path)


def test_the_table_of_the_literature(table):
    first, second, notes = table.text().split("\n\n")
    assert [line.split() for line in first.splitlines()] == [
        ["DSC,", "mean", "over", "the", "cases"],
        ["T1", "FLAIR", "cases", "whole", "core", "mean"],
        ["●", "○", "2", "0.6000", "0.1000", "0.3500"],
        ["○", "●", "2", "0.6000", "0.4000", "0.5000"],
        ["●", "●", "2", "0.8000", "0.6000", "0.7000"],
        ["average", "0.6667", "0.3667", "0.5167"],
    ]
    assert len({len(line) for line in first.splitlines()[1:]}) == 1
    assert second.splitlines()[0] == "HD95 (mm), mean over the cases"
    assert second.splitlines()[2].split() == ["●", "○", "2", "2.00", "2.00†", "2.00†"]
    assert second.splitlines()[5].split() == ["average", "2.33", "2.33", "2.33"]
    assert "NSD at 3 mm" in notes and "† leaves out cases with an infinite distance" in notes
    assert "different cases" not in notes


def test_what_is_undefined_or_infinite_throughout():
    results = {"T1": scores([0.5], [0.0]), "FLAIR": None, "T1+FLAIR": scores([math.nan], [0.4])}
    table = SubsetTable(TWO, results)
    assert [table.cell("T1", c, "HD95") for c in ("whole", "core")] == ["2.00", "inf"]
    assert [table.cell(folder, "whole", "DSC") for folder in TWO.subsets] == ["0.5000", "–", "–"]
    assert table.average("whole", "DSC") == 0.5 and table.num_cases("FLAIR") == 0
    assert "rows do not compare" in table.text()
    nothing = SubsetTable(TWO, dict.fromkeys(TWO.subsets))
    assert math.isnan(nothing.average("whole", "DSC")) and nothing.classes == []


def test_the_csv_holds_every_metric(table, tmp_path):
    with table.save(tmp_path).open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == (3 + 1) * 3 * 17
    (found,) = [r for r in lines if (r["subset"], r["class"], r["metric"]) == ("T1", "core", "HD95")]
    assert (float(found["mean"]), found["infinite"], found["cases"]) == (2.0, "1", "2")
    (average,) = [r for r in lines if (r["subset"], r["class"], r["metric"]) == ("average", "mean", "DSC")]
    assert float(average["mean"]) == pytest.approx((0.35 + 0.5 + 0.7) / 3)


def test_every_folder_is_evaluated(predictions):
    table = evaluate(predictions)
    assert table.num_cases("T1") == 1 and table.results["FLAIR"] is None and table.num_cases("T1+FLAIR") == 2
    assert table.cell("T1+FLAIR", "lesion", "DSC") == "1.0000"
    assert table.cell("T1", "lesion", "DSC") == "0.7500"  # 3 of 4 columns overlap
    assert {f.name for f in (predictions / "OUT" / "T1").iterdir()} == {
        *("a.nii.gz", "dataset.json", "metrics.csv", "evaluation.json", "summary.json")
    }
    assert (predictions / "OUT" / "subsets.csv").is_file()
    assert SubsetTable.load(predictions / "OUT").text() == table.text()


def test_missing_predictions_are_an_error_unless_allowed(predictions):
    with pytest.raises(UsageError, match=r"1 of 2 references have no prediction in .*T1"):
        evaluate(predictions, only_predicted=False)
    table = evaluate(predictions, only_predicted=False, allow_missing=True)
    assert table.cell("T1", "lesion", "DSC") == "0.3750" and table.cell("FLAIR", "lesion", "DSC") == "0.0000"


def test_another_output_folder_holds_everything(predictions):
    evaluate(predictions, predictions / "results")
    assert (
        not (predictions / "OUT" / "subsets.csv").exists() and not (predictions / "OUT" / "T1" / "metrics.csv").exists()
    )
    assert SubsetTable.load(predictions / "results").num_cases("T1+FLAIR") == 2


def test_an_interrupted_evaluation_goes_on(predictions, monkeypatch):
    save = EvaluationResult.save

    def interrupted(self, folder):
        if folder.name == "T1+FLAIR":
            raise KeyboardInterrupt
        return save(self, folder)

    monkeypatch.setattr(EvaluationResult, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(predictions)
    monkeypatch.setattr(EvaluationResult, "save", save)
    monkeypatch.setattr("nnunet_ext.evaluation.evaluate.evaluate_case", None)  # nothing is left to score
    assert evaluate(predictions).num_cases("T1+FLAIR") == 2
    assert not list((predictions / "OUT").rglob(".evaluation*"))
