from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from toy_results import make_column, make_methods, make_result

from nnunet_ext.evaluation.comparison.pairing import (
    Method,
    compared_cases,
    mean_of_defined,
    name_some,
    named_folders,
    pair_values,
    split_name,
)
from nnunet_ext.utilities.errors import UsageError

INF, NAN = math.inf, math.nan


def values_of(methods, metric, name, class_index=0, **options):
    return pair_values(methods, [metric], **options).values[name][class_index, 0].tolist()


def test_repeats_are_averaged_per_case():
    repeats = Method("a", (make_column("HD95", [1, 2, NAN, NAN]), make_column("HD95", [3, INF, 5, NAN])))
    paired = pair_values([repeats, *make_methods("HD95", b=[0, 0, 0, 0])], ["HD95"])
    np.testing.assert_equal(paired.values["a"][0, 0], [2, INF, 5, NAN])
    assert "a: 2 results, values of a case averaged over 2 results" in paired.notes
    assert "a: undefined repeats left out of the averages of 1 cases: case_02" in paired.notes
    assert any("different numbers of results" in note for note in paired.notes)


def test_folds_are_pooled_in_the_order_of_the_cases():
    folds = Method("a", (make_column("DSC", [0.3, 0.4], start=2), make_column("DSC", [0.1, 0.2])))
    methods = [folds, *make_methods("DSC", b=[0.5] * 4)]
    assert values_of(methods, "DSC", "a") == [0.1, 0.2, 0.3, 0.4]
    assert pair_values(methods, ["DSC"]).notes == ["a: 2 results, cases pooled, one result per case"]


def test_uneven_repeats_are_noted():
    uneven = Method("a", (make_column("DSC", [0.3, 0.5, 0.5]), make_column("DSC", [0.1])))
    notes = pair_values([uneven, *make_methods("DSC", b=[0.5] * 3)], ["DSC"]).notes
    assert "a: 2 results, 1 to 2 results per case" in notes


def test_signed_errors_are_absolute_before_they_are_averaged():
    repeats = Method("a", (make_column("VE", [-4, 1]), make_column("VE", [2, 1])))
    assert values_of([repeats, *make_methods("VE", b=[0, -3])], "VE", "a") == [3, 1]
    assert values_of([repeats, *make_methods("VE", b=[0, -3])], "VE", "b") == [0, 3]


def test_mean_over_classes_leaves_out_undefined_ones():
    numbers = {("x", "lung"): 0.8, ("x", "lesion"): 0.4, ("y", "lung"): 0.6, ("y", "lesion"): NAN}
    result = make_result({key: {"DSC": value} for key, value in numbers.items()})
    paired = pair_values([Method("a", (result,)), Method("b", (result,))], ["DSC"])
    assert paired.classes == ["lung", "lesion", "mean"]
    assert paired.values["a"][2, 0].tolist() == pytest.approx(list(result.mean_over_classes("DSC").values()))
    assert paired.values["a"][2, 0].tolist() == pytest.approx([0.6, 0.6])


def test_one_class_has_no_mean_and_a_class_called_mean_keeps_its_name():
    assert pair_values(make_methods("DSC", a=[0, 1], b=[0, 1]), ["DSC"]).classes == ["lesion"]
    named = make_result({(case, name): {"DSC": 0.5} for case in "xy" for name in ("mean", "lesion")})
    paired = pair_values([Method("a", (named,)), Method("b", (named,))], ["DSC"])
    assert paired.classes == ["mean", "lesion"]
    assert any("a class is named" in note for note in paired.notes)


def test_mean_of_defined():
    values = np.array([[1.0, INF, NAN, NAN], [3.0, 1.0, 4.0, NAN]])
    np.testing.assert_equal(mean_of_defined(values, axis=0), [2.0, INF, 4.0, NAN])


def test_lacking_cases_are_named_or_left_out():
    methods = make_methods("DSC", a=[0.1, 0.2, 0.3, 0.4], b=[0.1, 0.2, 0.3])
    with pytest.raises(UsageError, match=r"b lacks case_03\..*3 common cases: --common-cases"):
        compared_cases(methods)
    paired = pair_values(methods, ["DSC"], common_cases=True)
    assert paired.cases == ["case_00", "case_01", "case_02"]
    assert paired.notes == ["restricted to the 3 common cases; left out: case_03"]


def test_two_cases_are_needed():
    with pytest.raises(UsageError, match="1 cases to compare .case_00.; at least 2"):
        compared_cases(make_methods("DSC", a=[0.1], b=[0.1]))


@pytest.mark.parametrize(
    "header, message",
    [
        ({"surface_definition": "C"}, r"surface definition is A in a \(out\) but C in b \(out_b\)"),
        ({"tolerance_mm": 2.0}, "NSD tolerance is 3 mm .* but 2 mm"),
        ({"class_name": "lung"}, "classes lesion, but .* has lung"),
        ({"reference_voxels": 90}, "reference of case case_00, class lesion, has 100 voxels .* but 90"),
    ],
)
def test_what_must_agree(header, message):
    other = make_column("DSC", [0.1, 0.2], prediction="out_b", **header)
    with pytest.raises(UsageError, match=message):
        pair_values([*make_methods("DSC", a=[0.1, 0.2]), Method("b", (other,))], ["DSC"])


def test_repeats_must_agree_too():
    repeats = Method("a", (make_column("DSC", [0.1, 0.2]), make_column("DSC", [0.1, 0.2], tolerance_mm=1.0)))
    with pytest.raises(UsageError, match="NSD tolerance"):
        pair_values([repeats, *make_methods("DSC", b=[0.1, 0.2])], ["DSC"])


def test_other_folders_and_missing_predictions_are_notes():
    other = make_column("DSC", [0.1, 0.2], reference="copy", missing=["case_01"])
    notes = pair_values([*make_methods("DSC", a=[0.1, 0.2]), Method("b", (other,))], ["DSC"]).notes
    assert notes == [
        "the references are of the same size but in different folders: labelsTs, copy",
        "b: no prediction, scored as an empty one: case_01",
    ]


def test_names_are_cut_after_ten():
    assert name_some(["a", "b"]) == "a, b"
    assert name_some([str(i) for i in range(12)]).endswith("8, 9 and 2 more")
    assert name_some([]) == "none"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("x/out", "y/out", "z", "lr=1e-3"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def named(*texts):
    root = Path.cwd()
    return {name: [str(path.relative_to(root)) for path in found] for name, found in named_folders(texts).items()}


def test_split_name(folders):
    assert split_name("lr=1e-3") == ("", Path("lr=1e-3"))
    assert split_name("UCI=lr=1e-3") == ("UCI", Path("lr=1e-3"))
    assert split_name("plain") == ("", Path("plain"))
    for text in ("=z", "A=", "=", ""):
        with pytest.raises(UsageError, match=r"is not \[NAME=\]FOLDER: name or folder is empty"):
            split_name(text)


def test_folders_of_one_name_come_together_in_the_order_of_names(folders):
    assert named("A=x/out", "z", "A=y/out") == {"A": ["x/out", "y/out"], "z": ["z"]}


def test_folders_without_a_name_are_told_apart(folders):
    assert named("x/out", "y/out") == {"x/out": ["x/out"], "y/out": ["y/out"]}
    assert named("z", "z=x/out") == {f"{folders.name}/z": ["z"], "z": ["x/out"]}
    labels = named_folders(["x/out", "z"], label=lambda folder: "same")
    assert list(labels) == ["out", "z"]


def test_a_folder_given_twice_is_named(folders):
    with pytest.raises(UsageError, match=r"x/out is given twice for A; name it once"):
        named("A=x/out", "B=z", "A=x/../x/out")
    with pytest.raises(UsageError, match=r"/z is given twice; name it once"):
        named("z", "z")
    assert named("A=z", "B=z") == {"A": ["z"], "B": ["z"]}


def test_only_a_mean_of_classes_is_called_one():
    assert not pair_values(make_methods("DSC", a=[0, 1], b=[0, 1]), ["DSC"]).has_mean
    for other, has_mean in (("lung", True), ("mean", False)):
        result = make_result({(case, name): {"DSC": 0.5} for case in "xy" for name in (other, "lesion")})
        assert pair_values([Method("a", (result,)), Method("b", (result,))], ["DSC"]).has_mean is has_mean
