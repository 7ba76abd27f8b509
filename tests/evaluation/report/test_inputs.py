from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from report_toy import make_model, make_result

from nnunet_ext.evaluation.report.inputs import read_inputs
from nnunet_ext.utilities.errors import UsageError

RESULT = make_result({"a": 0.5, "b": 0.75})


@pytest.fixture
def model(tmp_path):
    """A model with an evaluated validation."""
    folder = make_model(tmp_path / "results")
    RESULT.save(folder / "fold_0" / "validation")
    return folder


@pytest.fixture
def evaluations(tmp_path):
    for name in ("x/out", "y/out", "z"):
        RESULT.save(tmp_path / name)
    return tmp_path


def names(inputs):
    return [name for name, _ in inputs.models], [(one.name, one.folder.name) for one in inputs.evaluations]


def test_a_model_brings_its_validation(model):
    assert names(read_inputs([model])) == (["UCITrainer"], [("UCITrainer", "validation")])
    assert names(read_inputs([f"Mine={model}"])) == (["Mine"], [("Mine", "validation")])
    shutil.rmtree(model / "fold_0" / "validation")
    assert names(read_inputs([model])) == (["UCITrainer"], [])


def test_an_evaluation_given_for_a_model_replaces_its_validation(model, evaluations):
    assert names(read_inputs([model], evaluation=evaluations / "z"))[1] == [("UCITrainer", "z")]
    assert names(read_inputs([model, evaluations / "z"]))[1] == [("z", "z")]
    assert names(read_inputs([f"A={model}", f"A={evaluations / 'z'}"]))[1] == [("A", "z")]
    assert names(read_inputs([f"A={model}", f"B={evaluations / 'z'}"]))[1] == [("A", "validation"), ("B", "z")]


def test_names_from_folders_are_told_apart(model, evaluations):
    given = [evaluations / "x" / "out", evaluations / "y" / "out"]
    assert [one.name for one in read_inputs(given).evaluations] == ["x/out", "y/out"]
    assert [one.name for one in read_inputs([evaluations / "z", f"z={given[0]}"]).evaluations] == [
        f"{evaluations.name}/z",
        "z",
    ]


def test_repeats_share_a_name(evaluations):
    inputs = read_inputs([f"A={evaluations / 'x' / 'out'}", f"B={evaluations / 'z'}", f"A={evaluations / 'y' / 'out'}"])
    assert {name: len(found) for name, found in inputs.methods.items()} == {"A": 2, "B": 1}
    assert list(inputs.methods) == ["A", "B"]


def test_refused(model, evaluations, tmp_path):
    with pytest.raises(UsageError, match="name a model folder"):
        read_inputs([])
    for folder in (tmp_path, model / "fold_0", tmp_path / "absent"):
        with pytest.raises(UsageError, match="is no model folder .* run: nnunet_ext evaluate GT PRED"):
            read_inputs([folder])
    with pytest.raises(UsageError, match="z is given twice"):
        read_inputs([f"A={evaluations / 'z'}", f"B={evaluations / 'z'}"])
    with pytest.raises(UsageError, match="-f 7: .* folds here: 0"):
        read_inputs([model], fold="7")
    with pytest.raises(UsageError, match="--evaluation is for one model folder, not 0"):
        read_inputs([evaluations / "z"], evaluation=evaluations / "x" / "out")
    with pytest.raises(UsageError, match="run: nnunet_ext evaluate"):
        read_inputs([model], evaluation=tmp_path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"tolerance_mm": 1.0}, "NSD tolerance is 3 mm in A .* but 1 mm in A"),
        ({"surface_definition": "C"}, "surface definition is A in A .* but C in A"),
        ({"rows": make_result({"a": 0.5}, "lung").rows, "labels": {"lung": 1}}, "classes lesion, but .* has lung"),
        ({"rows": [row | {"FN": 7.0} for row in RESULT.rows]}, "reference of case a, class lesion, has 1000 voxels"),
    ],
)
def test_repeats_measured_differently_are_not_averaged(tmp_path, header, message):
    RESULT.save(tmp_path / "x")
    replace(RESULT, **header).save(tmp_path / "y")
    with pytest.raises(UsageError, match=message):
        read_inputs([f"A={tmp_path / 'x'}", f"A={tmp_path / 'y'}"])
    if "tolerance_mm" in header:  # the page says of different names that they cannot be compared
        assert len(read_inputs([tmp_path / "x", tmp_path / "y"]).evaluations) == 2
