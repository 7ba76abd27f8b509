from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from report_toy import make_result

from nnunet_ext.evaluation.report.evaluation import describe_methods
from nnunet_ext.evaluation.report.examples import (
    describe_examples,
    drawn_evaluation,
    example_cases,
    find_dataset_json,
    prediction_file,
)
from nnunet_ext.evaluation.report.inputs import Evaluated


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"a": 0.5, "b": 0.9, "c": 0.1, "d": math.nan, "e": 0.6}, [("Best", "b"), ("Median", "a"), ("Worst", "c")]),
        ({"a": 0.5, "b": 0.9}, [("Best", "b"), ("Worst", "a")]),
        ({"a": 0.5}, [("Only", "a")]),
        ({"a": math.nan}, []),
    ],
)
def test_example_cases(scores, expected):
    assert [(example.rank, example.name) for example in example_cases({"": make_result(scores)})] == expected


def test_several_methods_are_averaged_and_told_apart():
    first, second = {"a": 0.5, "b": 0.9, "c": 0.1, "d": 0.6}, {"a": 0.5, "b": 0.9, "c": 0.3, "d": 0.0}
    found = example_cases({"X": make_result(first), "Y": make_result(second)})
    assert [(example.rank, example.name) for example in found] == [
        ("Best", "b"),
        ("Median and largest difference", "d"),
        ("Worst", "c"),
    ]
    assert found[1].scores == ["X: DSC 0.6000, HD95 4.00 mm", "Y: DSC 0.0000, HD95 inf mm"]


def test_cases_that_all_methods_have_go_first():
    found = example_cases({"X": make_result({"a": 0.5, "b": 0.9}), "Y": make_result({"a": 0.5})})
    assert [example.name for example in found] == ["a"]
    apart = example_cases({"X": make_result({"a": 0.5}), "Y": make_result({"b": 0.4})})
    assert [(example.name, len(example.scores)) for example in apart] == [("a", 1), ("b", 1)]


def test_prediction_file(tmp_path):
    result = replace(make_result({"a": 0.5, "b": 0.0}, folder="/moved/away"), missing=["b"])
    (method,) = describe_methods({"X": [Evaluated("X", tmp_path, result)]})
    assert prediction_file(method, "a") == tmp_path / "a.nii.gz"
    assert prediction_file(method, "b") is None
    assert prediction_file(method, "elsewhere") is None


def test_without_images_there_is_a_hint():
    methods = describe_methods({"X": [Evaluated("X", Path("x"), make_result({"a": 0.5}))]})
    examples = describe_examples(methods, None, None, None)
    assert "--images" in examples.note and [case.name for case in examples.cases] == ["a"]


def test_find_dataset_json(tmp_path):
    raw, predictions = tmp_path / "raw", tmp_path / "out"
    for folder in (raw / "imagesTs", raw / "labelsTs", predictions):
        folder.mkdir(parents=True)
    assert find_dataset_json(predictions, raw / "labelsTs", raw / "imagesTs") == {}
    (raw / "dataset.json").write_text('{"channel_names": {"0": "CT"}}')
    assert find_dataset_json(predictions, Path("/absent"), raw / "imagesTs")["channel_names"] == {"0": "CT"}


def test_the_drawn_evaluation_is_named_with_its_own_score():
    scores = [{"a": 0.8, "c": 0.5}, {"a": 0.4, "d": 0.5}]
    found = [Evaluated("X", Path(f"/seed{i}"), make_result(score)) for i, score in enumerate(scores)]
    (method,) = describe_methods({"X": found})
    assert drawn_evaluation(method, "a") == (
        "X: scores are averages over 2 evaluations; the outlines are those of the first, /seed0: DSC 0.8000,"
        " HD95 2.00 mm."
    )
    assert drawn_evaluation(method, "c") == ""
