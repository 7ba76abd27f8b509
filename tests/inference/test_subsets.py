"""Prediction of every subset of the modalities."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from toy_maml import NAMES, write_cases, write_maml_model

from nnunet_ext.evaluation.subsets import Subsets
from nnunet_ext.inference import predictor as module
from nnunet_ext.inference.predictor import ExtensionPredictor
from nnunet_ext.inference.subsets import SubsetPredictor, subset_folder
from nnunet_ext.utilities.errors import UsageError

FOLDERS = ["T1", "T2", "FLAIR", "T1+T2", "T1+FLAIR", "T2+FLAIR", "T1+T2+FLAIR"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_maml_model(tmp_path_factory.mktemp("results") / "MAMLTrainer__nnUNetPlans__3d_fullres", folds=(0,))


@pytest.fixture
def cases(tmp_path):
    """``a`` is complete, ``b`` lacks T2."""
    return write_cases(tmp_path / "cases", {"a": (0, 1, 2), "b": (0, 2)})


def make(model, kind=SubsetPredictor, **options):
    predictor = kind(device=torch.device("cpu"), allow_tqdm=False, quiet=True, use_mirroring=False, **options)
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    return predictor


def predict(predictor, images, output, overwrite=True, processes=0):
    predictor.predict_from_files(str(images), str(output), True, overwrite, processes, 0)
    return output


def written(folder):
    return {str(file.relative_to(folder)) for file in folder.rglob("*.nii.gz")}


def expected(cases):
    """Files of cases with these modalities."""
    return {
        f"{folder}/{case}.nii.gz"
        for case, names in cases.items()
        for folder in FOLDERS
        if set(folder.split("+")) <= names
    }


def test_every_subset_of_what_a_case_has(model, cases, tmp_path):
    out = predict(make(model), cases, tmp_path / "out")
    assert written(out) == expected({"a": {*NAMES}, "b": {"T1", "FLAIR"}})
    subsets = Subsets.load(out)
    assert subsets.modalities == list(NAMES) and list(subsets.subsets) == FOLDERS
    assert subsets.subsets["T1+FLAIR"] == ["T1", "FLAIR"]
    assert subsets.model["trainer"] == "MAMLTrainer" and subsets.model["folder"] == str(model)
    for folder in FOLDERS:
        assert json.loads((out / folder / "dataset.json").read_text())["labels"]["lesion"] == 1


def test_each_equals_the_prediction_with_these_modalities(model, tmp_path):
    """Nothing is cropped here, so that preprocessing with all modalities makes no difference."""
    images = write_cases(tmp_path / "images", {"a": (0, 1, 2)})
    out = predict(make(model), images, tmp_path / "out")
    for folder in FOLDERS:
        alone = make(model, ExtensionPredictor, only_modalities=folder.replace("+", ","))
        predict(alone, images, tmp_path / "alone")
        ours, theirs = (np.load(f / "a.npz")["probabilities"] for f in (out / folder, tmp_path / "alone"))
        assert np.array_equal(ours, theirs)


def test_images_are_read_once_and_the_bar_counts_predictions(model, cases, tmp_path, monkeypatch):
    bars, read = [], []
    tqdm = module.tqdm
    monkeypatch.setattr(module, "tqdm", lambda *a, **k: bars.append(tqdm(*a, **{**k, "disable": False})) or bars[0])
    predictor = make(model)
    reader = predictor.plans_manager.image_reader_writer_class
    original = reader.read_images
    monkeypatch.setattr(reader, "read_images", lambda self, files: read.append(files) or original(self, files))
    predict(predictor, cases, tmp_path / "out")
    assert (bars[0].total, bars[0].n) == (7 + 3, 7 + 3)
    assert [len(files) for files in read] == [3, 2]
    assert predictor.network.present == (0, 1, 2)


def test_finished_predictions_are_kept(model, cases, tmp_path, monkeypatch):
    out = predict(make(model), cases, tmp_path / "out")
    before = {name: (out / name).stat().st_mtime_ns for name in written(out)}
    lost = {"T1+FLAIR/a.nii.gz", "FLAIR/a.nii.gz"}
    for name in lost:
        (out / name).unlink()
    predictor, selected = make(model), []
    select = predictor.network.select_modalities
    monkeypatch.setattr(
        predictor.network, "select_modalities", lambda chosen: selected.append(chosen) or select(chosen)
    )
    predict(predictor, cases, out, overwrite=False)
    assert selected == [[2], None, [0, 2], None]
    after = {name: (out / name).stat().st_mtime_ns for name in written(out)}
    assert after.keys() == before.keys() and {name for name in after if after[name] != before[name]} == lost
    predict(predictor, cases, out, overwrite=False)
    assert len(selected) == 4


def test_worker_processes_give_the_same(model, cases, tmp_path):
    here, there = (predict(make(model), cases, tmp_path / str(n), processes=n) for n in (0, 1))
    for file in here.rglob("*.npz"):
        ours, theirs = (np.load(f)["probabilities"] for f in (file, there / file.relative_to(here)))
        assert np.array_equal(ours, theirs)
    assert written(here) == written(there)


def test_refused(model, trained_model, tmp_path):
    with pytest.raises(UsageError, match="--all-subsets: a model of nnUNetTrainer needs all channels"):
        make(trained_model)
    seven = write_maml_model(tmp_path / "seven", [f"m{i}" for i in range(7)], folds=(0,))
    with pytest.raises(UsageError, match="7 modalities have 127 subsets; at most 6"):
        make(seven)


@pytest.mark.parametrize(
    ("names", "subset", "folder"),
    [
        (["T1", "T1ce", "FLAIR"], (0, 2), "T1+FLAIR"),
        (["T1/w", "T1 w", "T2"], (0, 1, 2), "T1_w_0+T1_w_1+T2"),
        (["ct", "CT"], (1,), "CT_1"),
        (["..", "a+b"], (0, 1), "modality+a_b"),
        (["Größe", "b"], (0,), "Größe"),
    ],
)
def test_folders_have_safe_names_of_their_own(names, subset, folder):
    assert subset_folder(names, subset) == folder
