from __future__ import annotations

import csv
import json
import math
import re
from functools import partial

import numpy as np
import pytest
import SimpleITK

from nnunet_ext.evaluation import evaluate
from nnunet_ext.evaluation.evaluate import evaluate_folders, find_dataset_json
from nnunet_ext.evaluation.journal import JOURNAL_NAME
from nnunet_ext.evaluation.results import CSV_NAME, JSON_NAME, EvaluationResult, spell, summarise
from nnunet_ext.utilities.errors import UsageError

SPACING = (5.0, 2.0, 0.5)  # z, y, x


def write(path, labels, spacing=SPACING, origin=(0.0, 0.0, 0.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(np.asarray(labels))
    image.SetSpacing(spacing[::-1])
    image.SetOrigin(origin)
    SimpleITK.WriteImage(image, str(path))


def volume(*positions, value=1):
    labels = np.zeros((4, 6, 8), dtype=np.uint8)
    for position in positions:
        labels[position] = value
    return labels


def dataset_json(path, labels=None, file_ending=".nii.gz"):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "channel_names": {"0": "CT"},
        "labels": labels or {"background": 0, "lesion": 1},
        "file_ending": file_ending,
    }
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def folders(tmp_path):
    """Four cases: a hit, a near miss, a missed lesion, nothing in both."""
    reference, prediction = tmp_path / "data" / "labelsTs", tmp_path / "predictions"
    dataset_json(prediction / "dataset.json")
    pairs = {
        "hit": (volume((1, 1, 1)), volume((1, 1, 1))),
        "near": (volume((0, 0, 1), (0, 0, 2)), volume((0, 0, 2), (0, 0, 6))),
        "missed": (volume((2, 2, 2)), volume()),
        "nothing": (volume(), volume()),
    }
    for name, pair in pairs.items():
        for folder, labels in zip((reference, prediction), pair, strict=True):
            write(folder / f"{name}.nii.gz", labels)
    (prediction / "plans.json").write_text("{}")
    (prediction / "predict_from_raw_data_args.json").write_text("{}")
    (prediction / "summary.json").write_text("nnU-Net's own")
    (prediction / ".hit.x7f.nii.gz").write_bytes(b"half-written by another process")
    return reference, prediction


def rows_by_case(result):
    return {row["case"]: row for row in result.rows}


def test_spacing_is_in_the_order_of_the_array(folders):
    rows = rows_by_case(evaluate_folders(*folders, tolerance_mm=0.5, quiet=True))
    assert list(rows) == ["hit", "missed", "near", "nothing"]
    near = rows["near"]  # the numbers of test_metrics.test_three_voxels_by_hand: along x, 0.5 mm
    assert [near[name] for name in ("DSC", "HD", "HD95", "ASD", "ASSD", "NSD")] == pytest.approx(
        [0.5, 2.0, 1.9, 1.0, 0.625, 0.75]
    )
    assert (near["TP"], near["FP"], near["FN"], near["TN"]) == (1, 1, 1, 189)
    assert near["reference_ml"] == near["prediction_ml"] == pytest.approx(2 * 0.005)
    assert rows["missed"]["HD"] == math.inf and rows["missed"]["DSC"] == 0
    assert math.isnan(rows["nothing"]["DSC"])


def test_summary_says_what_the_means_leave_out(folders):
    summary = evaluate_folders(*folders, quiet=True).summary()["lesion"]
    assert summary["DSC"] == pytest.approx(
        {"mean": 0.5, "std": 0.5, "median": 0.5, "n": 3, "infinite": 0, "undefined": 1}
    )
    assert summary["HD"]["mean"] == pytest.approx(1.0) and summary["HD"]["median"] == 2.0
    assert (summary["HD"]["n"], summary["HD"]["infinite"], summary["HD"]["undefined"]) == (2, 1, 1)


def test_summarise_nothing_and_only_infinities():
    assert math.isnan(summarise([])["mean"]) and math.isnan(summarise([math.nan])["median"])
    only = summarise([math.inf, math.inf])
    assert math.isnan(only["mean"]) and only["median"] == math.inf and only["infinite"] == 2


def test_result_does_not_depend_on_the_number_of_workers(folders):
    one, three = (evaluate_folders(*folders, num_processes=n, quiet=True) for n in (1, 3))
    assert repr(one) == repr(three)  # repr: nan equals itself


def test_files(folders, tmp_path):
    result = evaluate_folders(*folders, quiet=True)
    result.save(folders[1])
    assert (folders[1] / "summary.json").read_text() == "nnU-Net's own"
    content = json.loads((folders[1] / JSON_NAME).read_text(), parse_constant=pytest.fail)
    assert content["tolerance_mm"] == 3.0 and "3 mm" in content["definitions"]["NSD"]
    assert content["summary"]["lesion"]["HD"]["infinite"] == 1
    assert "infinite" in content["rules"]["one_empty"]
    with (folders[1] / CSV_NAME).open() as file:
        assert [row["case"] for row in csv.DictReader(file)] == result.cases
    with (folders[1] / CSV_NAME).open() as file:
        assert {(row["surface_definition"], row["nsd_tolerance_mm"]) for row in csv.DictReader(file)} == {("A", "3.0")}
    assert without_point_zero(EvaluationResult.load(folders[1])) == without_point_zero(result)
    with pytest.raises(UsageError, match="run: nnunet_ext evaluate"):
        EvaluationResult.load(tmp_path)
    (folders[1] / CSV_NAME).write_text("case,class,DSC\na,b,c\n")
    with pytest.raises(UsageError, match="not a table of nnunet_ext evaluate"):
        EvaluationResult.load(folders[1])


def without_point_zero(result):
    """CSV holds no types: what was an integer comes back as a float."""
    return re.sub(r"\.0(?=[,})\]])", "", repr(result))


def test_json_is_strict_when_nothing_is_finite(folders):
    for name in ("hit", "near"):
        (folders[1] / f"{name}.nii.gz").unlink()
    evaluate_folders(*folders, only_predicted=True, quiet=True).save(folders[1])
    summary = json.loads((folders[1] / JSON_NAME).read_text(), parse_constant=pytest.fail)["summary"]["lesion"]
    assert summary["HD"]["mean"] is None and summary["HD"]["median"] == "inf"


def test_table_names_empty_cases(folders):
    table = evaluate_folders(*folders, quiet=True).table()
    assert "0.5000 ±0.5000" in table
    assert "1 of 4 cases empty in both" in table and "1 of 4 cases empty in one only" in table
    assert spell("DSC", 0.5) == "0.5000" and spell("HD95", 1.5) == "1.50" and spell("HD", math.inf) == "inf"


def test_missing_prediction_is_an_error_unless_allowed(folders):
    (folders[1] / "hit.nii.gz").unlink()
    with pytest.raises(UsageError, match=r"1 of 4 references .*: hit \(--allow-missing .* --only-predicted"):
        evaluate_folders(*folders, quiet=True)
    allowed = evaluate_folders(*folders, allow_missing=True, quiet=True)
    assert allowed.missing == ["hit"] and rows_by_case(allowed)["hit"]["DSC"] == 0.0
    restricted = evaluate_folders(*folders, only_predicted=True, quiet=True)
    assert restricted.cases == ["missed", "near", "nothing"] and restricted.missing == []
    with pytest.raises(UsageError, match="exclude each other"):
        evaluate_folders(*folders, allow_missing=True, only_predicted=True)


@pytest.mark.parametrize("flags", [{}, {"only_predicted": True}, {"allow_missing": True}])
def test_extra_prediction_is_an_error(folders, flags):
    write(folders[1] / "extra.nii.gz", volume())
    with pytest.raises(UsageError, match="1 predictions have no reference .*: extra"):
        evaluate_folders(*folders, quiet=True, **flags)


def test_no_predictions_at_all(folders):
    for file in folders[1].glob("*.nii.gz"):
        file.unlink()
    with pytest.raises(UsageError, match=r"no files that end in .nii.gz"):
        evaluate_folders(*folders, only_predicted=True, quiet=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": np.zeros((4, 6, 9), np.uint8)}, r"shape \(4, 6, 8\) and \(4, 6, 9\)"),
        ({"spacing": (5.0, 2.0, 0.6)}, r"spacing \(5.0, 2.0, 0.5\) and \(5.0, 2.0, 0.6\)"),
        ({"origin": (3.0, 0.0, 0.0)}, "origin"),
    ],
)
def test_misaligned_predictions_are_listed(folders, change, words):
    for name in ("hit", "near"):
        write(folders[1] / f"{name}.nii.gz", **({"labels": volume()} | change))
    with pytest.raises(UsageError, match=f"2 predictions are not on the grid.*hit.*{words}.*near"):
        evaluate_folders(*folders, quiet=True)


def test_flipped_direction_is_misaligned(folders):
    path = folders[1] / "hit.nii.gz"
    image = SimpleITK.ReadImage(str(path))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(path))
    with pytest.raises(UsageError, match="direction"):
        evaluate_folders(*folders, quiet=True)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_unknown_value_is_named(folders, num_processes):
    write(folders[1] / "hit.nii.gz", volume((1, 1, 1), value=255))
    with pytest.raises(UsageError, match=r"hit.nii.gz holds values 255; known are only 0, 1"):
        evaluate_folders(*folders, num_processes=num_processes, quiet=True)


@pytest.mark.parametrize("value", [0.5, -1.0, 70000.0])
def test_values_that_are_no_labels(folders, value):
    write(folders[1] / "hit.nii.gz", volume((1, 1, 1)).astype(np.float32) * np.float32(value))
    with pytest.raises(UsageError, match="values that are no labels"):
        evaluate_folders(*folders, quiet=True)


def test_nan_is_no_label(tmp_path):
    dataset_json(tmp_path / "dataset.json", file_ending=".mha")  # ITK reads nan in NIfTI as 0
    write(tmp_path / "labelsTs" / "a.mha", volume())
    write(tmp_path / "predictions" / "a.mha", volume().astype(np.float32) * np.float32(np.nan))
    with pytest.raises(UsageError, match="values that are no labels"):
        evaluate_folders(tmp_path / "labelsTs", tmp_path / "predictions", quiet=True)


def test_float_labels_are_labels(folders):
    write(folders[1] / "hit.nii.gz", volume((1, 1, 1)).astype(np.float32))
    assert rows_by_case(evaluate_folders(*folders, quiet=True))["hit"]["DSC"] == 1.0


def test_corrupt_file_is_named(folders):
    (folders[1] / "near.nii.gz").write_bytes(b"not an image")
    with pytest.raises(UsageError, match=r"near.nii.gz cannot be read"):
        evaluate_folders(*folders, quiet=True)


def test_regions_and_ignore_label(tmp_path):
    reference, prediction = tmp_path / "labelsTr", tmp_path / "predictions"
    dataset_json(tmp_path / "dataset.json", {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3})
    write(reference / "a.nii.gz", volume((0, 0, 0), value=1) + volume((0, 0, 1), value=2) + volume((3, 5, 7), value=3))
    write(prediction / "a.nii.gz", volume((0, 0, 0), (0, 0, 1), value=1) + volume((3, 5, 7), value=2))
    whole, core = evaluate_folders(reference, prediction, quiet=True).rows
    assert (whole["class"], whole["DSC"], whole["FP"]) == ("whole", 1.0, 0)
    assert (core["class"], core["DSC"], core["HD"]) == ("core", 0.0, math.inf)


def test_mean_over_classes_leaves_out_undefined_ones(tmp_path):
    reference, prediction = tmp_path / "labelsTr", tmp_path / "predictions"
    dataset_json(tmp_path / "dataset.json", {"background": 0, "one": 1, "two": 2})
    for name, value in (("a", 1), ("b", 0)):
        for folder in (reference, prediction):
            write(folder / f"{name}.nii.gz", volume((0, 0, 0), value=value))
    means = evaluate_folders(reference, prediction, quiet=True).mean_over_classes("DSC")
    assert means["a"] == 1.0 and math.isnan(means["b"])


def test_png_has_spacing_one_and_no_volume(tmp_path):
    dataset_json(tmp_path / "dataset.json", file_ending=".png")
    for folder, column in (("labelsTs", 1), ("predictions", 4)):
        image = np.zeros((5, 7), np.uint8)
        image[2, column] = 1
        write(tmp_path / folder / "a.png", image, spacing=(0.25, 0.25), origin=(0.0, 0.0))
    row = evaluate_folders(tmp_path / "labelsTs", tmp_path / "predictions", quiet=True).rows[0]
    assert row["HD"] == 3.0 and math.isnan(row["reference_ml"])


def test_coloured_png_is_refused(tmp_path):
    dataset_json(tmp_path / "dataset.json", file_ending=".png")
    for folder in ("labelsTs", "predictions"):
        (tmp_path / folder).mkdir()
        image = SimpleITK.GetImageFromArray(np.zeros((5, 7, 3), np.uint8), isVector=True)
        SimpleITK.WriteImage(image, str(tmp_path / folder / "a.png"))
    with pytest.raises(UsageError, match=r"a.png is in colour \(mode RGB\)"):
        evaluate_folders(tmp_path / "labelsTs", tmp_path / "predictions", quiet=True)


def test_tiff_takes_the_spacing_of_its_json(tmp_path):
    dataset_json(tmp_path / "dataset.json", file_ending=".tif")
    for folder, column in (("labelsTs", 1), ("predictions", 4)):
        write(tmp_path / folder / "a.tif", volume((0, 0, column)))
        (tmp_path / folder / "a.json").write_text(json.dumps({"spacing": [4.0, 3.0, 2.0]}))
    assert evaluate_folders(tmp_path / "labelsTs", tmp_path / "predictions", quiet=True).rows[0]["HD"] == 6.0


def test_dataset_json_of_a_model_is_found_from_its_validation_folder(tmp_path):
    validation, reference = tmp_path / "model" / "fold_0" / "validation", tmp_path / "labelsTr"
    expected = dataset_json(tmp_path / "model" / "dataset.json")
    validation.mkdir(parents=True)
    assert find_dataset_json(reference, validation) == expected
    expected.unlink()
    assert find_dataset_json(reference, validation) is None


@pytest.mark.parametrize("content", [{"labels": {"background": 0, "a": 1}}, {"file_ending": ".nii.gz"}])
def test_dataset_json_of_another_kind(folders, tmp_path, content):
    (tmp_path / "d.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="must be a dataset.json of nnU-Net v2"):
        evaluate_folders(*folders, dataset_json=tmp_path / "d.json", quiet=True)


def test_wrong_arguments(folders, tmp_path):
    with pytest.raises(UsageError, match="--nsd-tolerance -1"):
        evaluate_folders(*folders, tolerance_mm=-1)
    with pytest.raises(UsageError, match="-np 0"):
        evaluate_folders(*folders, num_processes=0)
    with pytest.raises(UsageError, match="absent is not a folder"):
        evaluate_folders(folders[0], tmp_path / "absent")
    with pytest.raises(UsageError, match="--surface-definition D: choose one of A, B, C"):
        evaluate_folders(*folders, surface_definition="D")


def test_definition_and_tolerance_stand_in_every_header(folders):
    result = evaluate_folders(*folders, surface_definition="C", tolerance_mm=1, quiet=True)
    result.save(folders[1])
    content = json.loads((folders[1] / JSON_NAME).read_text())
    assert content["surface_definition"] == "C" and "surfels" in content["definitions"]["surface_definition"]
    assert "NSD at 1 mm, surface definition C: area-weighted surfels" in result.table().splitlines()[0]
    with (folders[1] / CSV_NAME).open() as file:
        assert {(row["surface_definition"], row["nsd_tolerance_mm"]) for row in csv.DictReader(file)} == {("C", "1")}
    near = {d: rows_by_case(evaluate_folders(*folders, surface_definition=d, quiet=True))["near"] for d in "ABC"}
    assert near["A"]["HD95"] == pytest.approx(1.9) and near["B"]["HD95"] == pytest.approx(1.775)
    assert near["C"]["HD95"] == 2.0


def test_table_tells_lesions_and_the_mean_over_classes(tmp_path):
    dataset_json(tmp_path / "dataset.json", {"background": 0, "one": 1, "two": 2})
    for folder, column in (("labelsTr", 1), ("predictions", 5)):
        write(tmp_path / folder / "a.nii.gz", volume((0, 0, 0)) + volume((2, 2, column), value=2))
    table = evaluate_folders(tmp_path / "labelsTr", tmp_path / "predictions", quiet=True).table().splitlines()
    assert [line.split()[0] for line in table[1:5]] == ["class", "one", "two", "mean"]
    assert "0.5000" in table[4]
    assert "one: 1 of 1 lesions found, 0 false ones" in table and "two: 0 of 1 lesions found, 1 false ones" in table


@pytest.fixture
def three_labels(tmp_path):
    """A reference and a prediction with the labels 1 to 3; 3 is predicted as 2."""
    dataset_json(tmp_path / "labels" / "dataset.json", {"background": 0, "edema": 1, "core": 2, "enhancing": 3})
    reference = volume((0, 0, 0)) + volume((0, 0, 1), value=2) + volume((0, 0, 2), value=3)
    write(tmp_path / "labels" / "labelsTr" / "a.nii.gz", reference)
    write(tmp_path / "labels" / "predictions" / "a.nii.gz", np.minimum(reference, 2))
    return tmp_path / "labels" / "labelsTr", tmp_path / "labels" / "predictions"


def dice(result):
    return {row["class"]: row["DSC"] for row in result.rows}


def test_labels_by_name_or_value_and_regions(three_labels):
    assert dice(evaluate_folders(*three_labels, labels=["core", "1"], quiet=True)) == {
        "core": pytest.approx(2 / 3),
        "edema": 1.0,
    }
    regions = evaluate_folders(*three_labels, regions=["whole=1,2,3", "tumour=2,3"], quiet=True)
    assert dice(regions) == {"whole": 1.0, "tumour": 1.0} and regions.labels["tumour"] == [2, 3]
    both = evaluate_folders(*three_labels, labels=["3"], regions=["whole=1,2,3"], quiet=True)
    assert dice(both) == {"enhancing": 0.0, "whole": 1.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": ["tumor"]}, "--labels tumor: dataset.json has edema, core, enhancing"),
        ({"regions": ["whole"]}, "--regions whole must look like core=2,3"),
        ({"regions": ["whole=1,x"]}, "must look like"),
        ({"regions": ["whole=1,,2"]}, "must look like"),
        ({"regions": ["whole=1,4"]}, "--regions whole: dataset.json has no value 4"),
        ({"regions": ["whole=0,1"]}, "label values above 0"),
        ({"labels": ["core"], "regions": ["core=2,3"]}, "--regions core: there is a label or region of that name"),
        ({"regions": ["a=1", "a=2"]}, "--regions a: there is a label or region of that name"),
        ({"labels": ["²"]}, "--labels ²: dataset.json has"),
    ],
)
def test_wrong_labels_and_regions(three_labels, arguments, message):
    with pytest.raises(UsageError, match=message):
        evaluate_folders(*three_labels, **arguments, quiet=True)


def test_without_a_dataset_json_the_labels_say_what_there_is(three_labels):
    (three_labels[0].parent / "dataset.json").unlink()
    with pytest.raises(UsageError, match=r"no dataset.json in .*--labels 1 2"):
        evaluate_folders(*three_labels, quiet=True)
    with pytest.raises(UsageError, match=r"holds values 3; known are only 0, 1, 2"):
        evaluate_folders(*three_labels, labels=["1", "2"], quiet=True)
    with pytest.raises(UsageError, match="--labels edema: without a dataset.json"):
        evaluate_folders(*three_labels, labels=["edema"], quiet=True)
    result = evaluate_folders(*three_labels, labels=["1"], regions=["rest=2,3"], quiet=True)
    assert dice(result) == {"1": 1.0, "rest": 1.0}
    write(three_labels[0] / "b.nrrd", volume())
    with pytest.raises(UsageError, match=r"2 endings \(.nii.gz, .nrrd\)"):
        evaluate_folders(*three_labels, labels=["1"], quiet=True)


def test_goes_on_where_it_was_interrupted(folders, monkeypatch, capsys):
    expected = evaluate_folders(*folders, quiet=True)
    calls = []

    def interrupted(case, classes, scoring):
        calls.append(case.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate_case(case, classes, scoring)

    evaluate_case = evaluate.evaluate_case
    monkeypatch.setattr(evaluate, "evaluate_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_folders(*folders, journal=folders[1], quiet=True)
    assert calls == ["hit", "missed", "near"]
    with (folders[1] / JOURNAL_NAME).open("a") as file:
        file.write('\n{"key": "cut sho')  # a crash in the middle of a line
    result = evaluate_folders(*folders, journal=folders[1])
    assert calls == ["hit", "missed", "near", "near", "nothing"]
    assert "2 of 4 cases were finished by an interrupted run" in capsys.readouterr().out
    assert repr(result) == repr(expected)
    # Other settings, or a changed file, are other cases.
    evaluate_folders(*folders, journal=folders[1], tolerance_mm=1, quiet=True)
    assert calls[5:] == ["hit", "missed", "near", "nothing"]
    write(folders[1] / "hit.nii.gz", volume((1, 1, 2)))
    evaluate_folders(*folders, journal=folders[1], quiet=True)
    assert calls[9:] == ["hit"]


def test_a_journal_that_cannot_be_written_is_met_first(folders, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot be written to \(.*\); choose another folder: -o"):
        evaluate_folders(*folders, journal=tmp_path / "file" / "results", quiet=True)


def test_a_table_with_a_line_too_few_or_a_header_of_another_kind(folders):
    evaluate_folders(*folders, quiet=True).save(folders[1])
    table = folders[1] / CSV_NAME
    lines = table.read_text().splitlines()
    for kept in (lines[:1], [*lines, lines[1]]):
        table.write_text("\n".join(kept) + "\n")
        with pytest.raises(UsageError, match=r"must have one line for each case and each of the classes lesion"):
            EvaluationResult.load(folders[1])
    table.write_text("\n".join(lines) + "\n")
    (folders[1] / JSON_NAME).write_text("[]")
    with pytest.raises(UsageError, match="run nnunet_ext evaluate again"):
        EvaluationResult.load(folders[1])


def test_a_region_may_not_hold_the_ignore_label(tmp_path):
    dataset_json(tmp_path / "dataset.json", {"background": 0, "one": 1, "ignore": 3})
    for folder in ("labelsTr", "predictions"):
        write(tmp_path / folder / "a.nii.gz", volume((0, 0, 0)))
    with pytest.raises(UsageError, match="3 is the ignore label, whose voxels count nowhere"):
        evaluate_folders(tmp_path / "labelsTr", tmp_path / "predictions", regions=["all=1,3"], quiet=True)


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_the_rounding_of_a_spacing_does_not_decide_nsd(tmp_path, ending):
    dataset_json(tmp_path / "dataset.json", file_ending=ending)
    for folder, column in (("labelsTr", 1), ("predictions", 2)):
        write(tmp_path / folder / f"a{ending}", volume((0, 0, column)), spacing=(1.2, 1.2, 1.2))
    (row,) = evaluate_folders(tmp_path / "labelsTr", tmp_path / "predictions", tolerance_mm=1.2, quiet=True).rows
    assert row["NSD"] == 1.0  # one voxel apart; NIfTI says 1.2000000477 mm


@pytest.mark.filterwarnings("ignore:.*are stored as RGB:DeprecationWarning")  # nnU-Net's writer: 3 or 4 slices
@pytest.mark.parametrize("shape", [(3, 6, 8), (4, 6, 8), (6, 6, 8)])
def test_tiff_volumes_as_nnunet_writes_them(tmp_path, shape):
    from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

    dataset_json(tmp_path / "dataset.json", file_ending=".tif")
    for folder, column in (("labelsTs", 1), ("predictions", 4)):
        (tmp_path / folder).mkdir()
        labels = np.zeros(shape, np.uint8)
        labels[0, 0, column] = 1
        Tiff3DIO().write_seg(labels, str(tmp_path / folder / "a.tif"), {"spacing": (4.0, 3.0, 2.0)})
        (tmp_path / folder / "a.json").write_text(json.dumps({"spacing": [4.0, 3.0, 2.0]}))
    assert evaluate_folders(tmp_path / "labelsTs", tmp_path / "predictions", quiet=True).rows[0]["HD"] == 6.0


@pytest.mark.parametrize("content", ["{}", "[]", '{"spacing": [1.0]}', '{"spacing": [0, 1, 1]}'])
def test_a_wrong_companion_of_a_tiff_is_named(tmp_path, content):
    dataset_json(tmp_path / "dataset.json", file_ending=".tif")
    for folder in ("labelsTs", "predictions"):
        write(tmp_path / folder / "a.tif", volume((0, 0, 1)))
        (tmp_path / folder / "a.json").write_text(content)
    with pytest.raises(UsageError, match=r"a.json must hold .* with 3 positive numbers"):
        evaluate_folders(tmp_path / "labelsTs", tmp_path / "predictions", quiet=True)


def test_a_png_of_one_bit_is_a_mask(tmp_path):
    from PIL import Image

    dataset_json(tmp_path / "dataset.json", file_ending=".png")
    for folder in ("labelsTs", "predictions"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.eye(4) > 0).save(tmp_path / folder / "a.png")
    assert evaluate_folders(tmp_path / "labelsTs", tmp_path / "predictions", quiet=True).rows[0]["TP"] == 4


def test_labels_of_nnunet_1_are_refused(folders, tmp_path):
    path = dataset_json(tmp_path / "old.json", {"0": "background", "1": "lesion"})
    with pytest.raises(UsageError, match=r"old.json: \"labels\" must be name: value"):
        evaluate_folders(*folders, dataset_json=path, quiet=True)
    with pytest.raises(UsageError, match=r"--dataset-json .* is not a file"):
        evaluate_folders(*folders, dataset_json=tmp_path, quiet=True)


def test_four_axes_are_refused(tmp_path):
    dataset_json(tmp_path / "dataset.json")
    image = SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(volume())] * 2)
    for folder in ("labelsTs", "predictions"):
        (tmp_path / folder).mkdir()
        SimpleITK.WriteImage(image, str(tmp_path / folder / "a.nii.gz"))
    with pytest.raises(UsageError, match="1 channels and 4 axes"):
        evaluate_folders(tmp_path / "labelsTs", tmp_path / "predictions", quiet=True)


def test_every_unreadable_file_is_named(folders):
    for name in ("hit", "near"):
        (folders[1] / f"{name}.nii.gz").write_bytes(b"not an image")
    with pytest.raises(UsageError, match=r"(?s)hit.nii.gz cannot be read.*near.nii.gz cannot be read"):
        evaluate_folders(*folders, quiet=True)


def test_all_predictions_may_be_missing_if_allowed(folders):
    for file in folders[1].glob("*.nii.gz"):
        file.unlink()
    result = evaluate_folders(*folders, allow_missing=True, quiet=True)
    assert len(result.missing) == 4 and rows_by_case(result)["hit"]["DSC"] == 0.0


def test_infinite_tolerance(folders):
    for tolerance in (math.inf, math.nan):
        with pytest.raises(UsageError, match="must be finite and not negative"):
            evaluate_folders(*folders, tolerance_mm=tolerance, quiet=True)


def test_upper_case_endings_are_found(tmp_path):
    for folder in ("labelsTs", "predictions"):
        write(tmp_path / folder / "a.png", np.eye(4, dtype=np.uint8), spacing=(1.0, 1.0), origin=(0.0, 0.0))
        (tmp_path / folder / "a.png").rename(tmp_path / folder / "a.PNG")
    with pytest.raises(UsageError, match=r"0 endings \(none\)"):
        evaluate_folders(tmp_path / "labelsTs", tmp_path / "predictions", labels=["1"], quiet=True)


def test_the_mean_row_tells_what_it_leaves_out(tmp_path):
    dataset_json(tmp_path / "dataset.json", {"background": 0, "one": 1, "two": 2})
    for name, second in (("a", 2), ("b", 0)):
        write(tmp_path / "labelsTr" / f"{name}.nii.gz", volume((0, 0, 0)) + volume((2, 2, 2), value=2))
        write(tmp_path / "predictions" / f"{name}.nii.gz", volume((0, 0, 0)) + volume((2, 2, 2), value=second))
    table = evaluate_folders(tmp_path / "labelsTr", tmp_path / "predictions", quiet=True).table()
    assert "mean over the classes of a case: 1 of 2 cases empty in one only" in table


def test_a_class_may_be_called_mean(tmp_path):
    dataset_json(tmp_path / "dataset.json", {"background": 0, "mean": 1, "two": 2})
    for folder in ("labelsTr", "predictions"):
        write(tmp_path / folder / "a.nii.gz", volume((0, 0, 0)) + volume((2, 2, 2), value=2))
    lines = evaluate_folders(tmp_path / "labelsTr", tmp_path / "predictions", quiet=True).table().splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["class", "mean", "two"]


@pytest.mark.parametrize("shift", [5e-4, 5e-3])
def test_headers_may_differ_by_rounding_only(folders, shift):
    write(folders[1] / "hit.nii.gz", volume((1, 1, 1)), origin=(shift, 0.0, 0.0))
    if shift < 1e-3:
        assert evaluate_folders(*folders, quiet=True).cases
    else:
        with pytest.raises(UsageError, match="hit"):
            evaluate_folders(*folders, quiet=True)


def test_dataset_json_of_the_predictions_goes_first(tmp_path):
    validation = tmp_path / "model" / "fold_0" / "validation"
    validation.mkdir(parents=True)
    found = [dataset_json(tmp_path / "raw" / "dataset.json")]
    found.insert(0, dataset_json(tmp_path / "model" / "dataset.json"))
    found.insert(0, dataset_json(validation / "dataset.json"))
    for expected in found:
        assert find_dataset_json(tmp_path / "raw" / "labelsTr", validation) == expected
        expected.unlink()


def test_the_journal_tells_all_that_rows_depend_on(tmp_path, monkeypatch):
    dataset_json(tmp_path / "dataset.json", {"background": 0, "one": 1, "two": 2, "ignore": 3}, ".tif")
    for folder in ("labelsTr", "predictions"):
        write(tmp_path / folder / "a.tif", volume((0, 0, 1)))
        (tmp_path / folder / "a.json").write_text('{"spacing": [3, 1, 1]}')
    calls = []
    evaluate_case = evaluate.evaluate_case

    def counted(case, classes, scoring):
        calls.append(case.name)
        return evaluate_case(case, classes, scoring)

    monkeypatch.setattr(evaluate, "evaluate_case", counted)

    def again(**options):
        calls.clear()
        evaluate_folders(
            tmp_path / "labelsTr", tmp_path / "predictions", journal=tmp_path / "journal", quiet=True, **options
        )
        return len(calls)

    assert (again(), again()) == (1, 0)
    assert again(surface_definition="C") == 1 and again(tolerance_mm=1) == 1 and again(labels=["one"]) == 1
    dataset_json(tmp_path / "dataset.json", {"background": 0, "one": 1, "two": 2, "ignore": 4}, ".tif")
    assert again() == 1
    for folder in ("labelsTr", "predictions"):
        (tmp_path / folder / "a.json").write_text('{"spacing": [30, 1, 1]}')
    assert again() == 1
    monkeypatch.setattr(evaluate, "__version__", "another")
    assert again() == 1


def test_progress_names_the_finished_case(folders, capsys, monkeypatch):
    from nnunet_ext.utilities import parallel

    monkeypatch.setattr(parallel, "tqdm", partial(parallel.tqdm, mininterval=0))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    evaluate_folders(*folders)
    assert "Evaluating" in (shown := capsys.readouterr().err) and "nothing]" in shown
