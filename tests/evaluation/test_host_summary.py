from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import SimpleITK

from nnunet_ext.evaluation.evaluate import evaluate_folders
from nnunet_ext.evaluation.host_summary import SUMMARY_NAME, write_host_summary

HOST_NAMES = ("Dice", "IoU", "FP", "TP", "FN", "TN", "n_pred", "n_ref")


@pytest.fixture
def folders(tmp_path):
    """Random labels 0 to 2 and the ignore label 3; class 2 is nowhere in case c."""
    content = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    content["labels"] = {"background": 0, "whole": [1, 2], "core": 2, "alone": [2], "ignore": 3}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    generator = np.random.default_rng(0)
    for name in "abc":
        for folder, labels in (("labelsTr", 4), ("predictions", 3)):
            (tmp_path / folder).mkdir(exist_ok=True)
            values = generator.integers(0, labels, (4, 5, 6)).astype(np.uint8)
            if name == "c":
                values[values == 2] = 0
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(tmp_path / folder / f"{name}.nii.gz"))
    return tmp_path / "labelsTr", tmp_path / "predictions"


def test_is_what_nnunet_writes_with_our_metrics_beside(folders, tmp_path):
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder, load_summary_json
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    theirs_file = tmp_path / "theirs.json"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nanmean of a class that is nowhere
        compute_metrics_on_folder(
            *map(str, folders), str(theirs_file), SimpleITKIO(), ".nii.gz", [(1, 2), 2, (2,)], 3, 1
        )
    result = evaluate_folders(*folders, quiet=True)
    assert write_host_summary(result, tmp_path / "out") == tmp_path / "out" / SUMMARY_NAME
    ours, theirs = (load_summary_json(str(path)) for path in (tmp_path / "out" / SUMMARY_NAME, theirs_file))
    assert set(ours["mean"]) == set(theirs["mean"]) == {(1, 2), 2, (2,)}
    for label in theirs["mean"]:
        for name in HOST_NAMES:
            assert ours["mean"][label][name] == pytest.approx(theirs["mean"][label][name], nan_ok=True)
    for mine, host in zip(ours["metric_per_case"], theirs["metric_per_case"], strict=True):
        assert (mine["reference_file"], mine["prediction_file"]) == (host["reference_file"], host["prediction_file"])
        for label, metrics in host["metrics"].items():
            assert {n: mine["metrics"][label][n] for n in HOST_NAMES} == pytest.approx(metrics, nan_ok=True)
    assert {n: ours["foreground_mean"][n] for n in HOST_NAMES} == pytest.approx(theirs["foreground_mean"], nan_ok=True)
    assert ours["nnunet_ext"] == {"surface_definition": "A", "nsd_tolerance_mm": 3.0}
    assert math.isfinite(ours["mean"][(1, 2)]["HD95"])


def test_one_of_nnunet_stays_one_of_ours_is_replaced(folders, tmp_path):
    result = evaluate_folders(*folders, quiet=True)
    for content in ("{}", "not JSON", "[]"):
        (folders[1] / SUMMARY_NAME).write_text(content)
        assert write_host_summary(result, folders[1]) is None
        assert (folders[1] / SUMMARY_NAME).read_text() == content
    (folders[1] / SUMMARY_NAME).write_text('{"nnunet_ext": {}}')
    assert write_host_summary(result, folders[1]) is not None
    assert "metric_per_case" in json.loads((folders[1] / SUMMARY_NAME).read_text())


def test_a_missing_prediction_has_no_file(folders, tmp_path):
    (folders[1] / "b.nii.gz").unlink()
    write_host_summary(evaluate_folders(*folders, allow_missing=True, quiet=True), tmp_path / "out")
    cases = json.loads((tmp_path / "out" / SUMMARY_NAME).read_text())["metric_per_case"]
    assert [case["prediction_file"] is None for case in cases] == [False, True, False]
