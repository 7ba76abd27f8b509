import multiprocessing
import time

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_ext.inference import predictor as module
from nnunet_ext.inference.export import partial_folder
from nnunet_ext.inference.predictor import ExtensionPredictor
from nnunet_ext.utilities.errors import UsageError


def make(kind, trained_model, **options):
    predictor = kind(device=torch.device("cpu"), allow_tqdm=False, **options)
    predictor.initialize_from_trained_model_folder(str(trained_model), (0, 1))
    return predictor


@pytest.fixture
def predictor(trained_model):
    return make(ExtensionPredictor, trained_model, quiet=True)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_predicts_what_the_host_predicts(predictor, trained_model, images, tmp_path):
    (tmp_path / "host").mkdir()
    cases = [[str(file)] for file in sorted(images.iterdir())]
    make(nnUNetPredictor, trained_model).predict_from_files_sequential(cases, str(tmp_path / "host"), True)
    predictor.predict_from_files(str(images), str(tmp_path / "ours"), True, True, 0, 0)
    assert names(tmp_path / "ours") == names(tmp_path / "host")
    assert {"plans.json", "dataset.json", "a.nii.gz", "b.npz", "b.pkl"} <= set(names(tmp_path / "ours"))
    for case in "ab":
        host, ours = (sitk.ReadImage(str(tmp_path / folder / f"{case}.nii.gz")) for folder in ("host", "ours"))
        assert np.array_equal(sitk.GetArrayFromImage(host), sitk.GetArrayFromImage(ours))
        assert host.GetSpacing() == ours.GetSpacing()
        host, ours = (np.load(tmp_path / folder / f"{case}.npz")["probabilities"] for folder in ("host", "ours"))
        assert np.array_equal(host, ours)


def test_arrays_are_returned_when_there_is_no_output(predictor, images):
    segmentations = predictor.predict_from_files_sequential(str(images), None)
    assert [s.shape for s in segmentations] == [(20, 18, 22)] * 2


def test_continues_an_interrupted_prediction(predictor, images, tmp_path, monkeypatch):
    original, calls = predictor.predict_logits_from_preprocessed_data, []

    def interrupted_on_the_second(data):
        calls.append(data)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(data)

    monkeypatch.setattr(predictor, "predict_logits_from_preprocessed_data", interrupted_on_the_second)
    output = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predictor.predict_from_files(str(images), str(output), False, False, 0, 0)
    assert [name for name in names(output) if not name.endswith(".json")] == ["a.nii.gz"]
    written = (output / "a.nii.gz").stat().st_mtime_ns
    predictor.predict_from_files(str(images), str(output), False, False, 0, 0)
    assert len(calls) == 3  # b alone
    assert [name for name in names(output) if not name.endswith(".json")] == ["a.nii.gz", "b.nii.gz"]
    assert (output / "a.nii.gz").stat().st_mtime_ns == written


def test_unreadable_images_are_named(predictor, images, tmp_path):
    (images / "a_0000.nii.gz").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"(?s)cannot be read or preprocessed.*a_0000\.nii\.gz"):
        predictor.predict_from_files(str(images), str(tmp_path / "out"), False, True, 0, 0)


def test_missing_predictions_of_the_previous_stage_are_named(predictor, images, tmp_path):
    with pytest.raises(UsageError, match=r"-prev_stage_predictions lacks .*a\.nii\.gz, .*b\.nii\.gz"):
        predictor.predict_from_files(
            str(images), str(tmp_path / "out"), False, True, 0, 0, folder_with_segs_from_prev_stage=str(tmp_path)
        )


def test_the_progress_bar_counts_cases(predictor, images, tmp_path, monkeypatch):
    bars = []
    tqdm = module.tqdm
    monkeypatch.setattr(module, "tqdm", lambda *a, **k: bars.append(tqdm(*a, **{**k, "disable": False})) or bars[0])
    predictor.predict_from_files(str(images), str(tmp_path / "out"), False, True, 0, 0)
    assert (bars[0].total, bars[0].n) == (2, 2)


def test_listed_files_that_are_absent_are_named(predictor, images, tmp_path):
    cases = [[str(images / "a_0000.nii.gz")], [str(images / "c_0000.nii.gz")]]
    with pytest.raises(UsageError, match=r"do not exist: .*c_0000\.nii\.gz"):
        predictor.predict_from_files(cases, str(tmp_path / "out"), False, True, 0, 0)
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_an_interrupt_ends_what_the_iterator_started(predictor, tmp_path):
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))

    def cases():
        child.start()
        partial_folder(str(tmp_path / "a")).mkdir()
        yield {"data": torch.zeros(1, 16, 16, 16), "data_properties": None, "ofile": str(tmp_path / "a")}
        raise AssertionError("not reached")

    predictor.predict_logits_from_preprocessed_data = raise_interrupt
    with pytest.raises(KeyboardInterrupt):
        predictor.predict_from_data_iterator(cases(), False, 0)
    assert not child.is_alive()
    assert not list(tmp_path.iterdir())


def raise_interrupt(_data):
    raise KeyboardInterrupt
