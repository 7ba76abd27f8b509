"""Prediction of a model of `MAMLTrainer` from cases that lack modalities."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from toy import SHIM
from toy_maml import CT, write_cases, write_maml_model, write_volume

from nnunet_ext.inference.predictor import ExtensionPredictor
from nnunet_ext.utilities.errors import UsageError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_maml_model(tmp_path_factory.mktemp("results") / "MAMLTrainer__nnUNetPlans__3d_fullres")


@pytest.fixture(autouse=True)
def found_by_the_host(monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", str(SHIM))


@pytest.fixture
def cases(tmp_path):
    """``a`` is complete, ``b`` lacks T2, ``c`` has T2 alone."""
    return write_cases(tmp_path / "cases", {"a": (0, 1, 2), "b": (0, 2), "c": (1,)})


def make(kind, model, folds=(0, 1), **options):
    predictor = kind(device=torch.device("cpu"), allow_tqdm=False, **options)
    predictor.initialize_from_trained_model_folder(str(model), folds)
    return predictor


def ours(model, **options):
    return make(ExtensionPredictor, model, quiet=True, **options)


def predict(predictor, images, output):
    predictor.predict_from_files(str(images), str(output), True, True, 0, 0)
    return output


def probabilities(folder, case):
    return np.load(folder / f"{case}.npz")["probabilities"]


def read(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def by_hand(model, folder, case, present):
    """Probabilities of the host's own prediction from an array, zeros in place of what is absent."""
    host = make(nnUNetPredictor, model)
    files = {channel: folder / f"{case}_{channel:04d}.nii.gz" for channel in present}
    image = np.zeros((3, 20, 18, 22), np.float32)
    for channel, file in files.items():
        image[channel] = read(file)
    host.network.select_modalities(present)
    return host.predict_single_npy_array(image, {"spacing": [1, 1, 1]}, None, None, True)[1]


class Watched:
    """Notes which streams each forward pass ran, and whether its input was all background in each channel."""

    def __init__(self, network):
        self.passes = []
        original = network.forward

        def forward(x, **options):
            self.passes.append(
                (network.present, tuple(bool((channel == channel.flatten()[0]).all()) for channel in x[0]))
            )
            return original(x, **options)

        network.forward = forward

    @property
    def streams(self):
        return {present for present, _ in self.passes}


def test_complete_cases_are_predicted_as_by_the_host(model, tmp_path):
    images = write_cases(tmp_path / "images", {"a": (0, 1, 2)})
    (tmp_path / "host").mkdir()
    files = [[str(file) for file in sorted(images.iterdir())]]
    make(nnUNetPredictor, model).predict_from_files_sequential(files, str(tmp_path / "host"), True)
    out = predict(ours(model), images, tmp_path / "out")
    assert np.array_equal(probabilities(out, "a"), probabilities(tmp_path / "host", "a"))
    assert np.array_equal(read(out / "a.nii.gz"), read(tmp_path / "host" / "a.nii.gz"))
    named = predict(ours(model, only_modalities="t1,T2,flair"), images, tmp_path / "named")
    assert np.array_equal(probabilities(out, "a"), probabilities(named, "a"))


def test_any_mixture_is_predicted_as_by_hand(model, cases, tmp_path, capsys):
    predictor = ours(model)
    out = predict(predictor, cases, tmp_path / "out")
    for case, present in (("a", (0, 1, 2)), ("b", (0, 2)), ("c", (1,))):
        assert np.array_equal(probabilities(out, case), by_hand(model, cases, case, present))
    assert not np.allclose(probabilities(out, "b"), by_hand(model, cases, "b", (0,)), atol=1e-3)
    assert predictor.network.present == (0, 1, 2)
    assert "2 of 3 cases lack modalities: b (has T1, FLAIR), c (has T2)" in capsys.readouterr().out


def test_an_absent_file_and_a_modality_not_chosen_are_the_same(model, tmp_path):
    complete = write_cases(tmp_path / "complete", {"a": (0, 1, 2)})
    partial = write_cases(tmp_path / "partial", {"a": (1, 2)})
    (complete / "a_0000.nii.gz").write_bytes(b"never opened")
    absent = predict(ours(model), partial, tmp_path / "absent")
    for text in ("T2,FLAIR", "2,1"):
        chosen = predict(ours(model, only_modalities=text), complete, tmp_path / text)
        assert np.array_equal(probabilities(absent, "a"), probabilities(chosen, "a"))


def test_one_modality_equals_its_stream_on_the_normalised_image(model, tmp_path):
    """One tile, no mirroring, one fold: written out without nnU-Net."""
    (tmp_path / "images").mkdir()
    volume = write_volume(tmp_path / "images" / "a_0000.nii.gz", 7, (16, 16, 16))
    predictor = make(ExtensionPredictor, model, (0,), quiet=True, use_mirroring=False, use_gaussian=False)
    out = predict(predictor, tmp_path / "images", tmp_path / "out")
    normalised = (volume.clip(CT["percentile_00_5"], CT["percentile_99_5"]) - CT["mean"]) / CT["std"]
    stream = predictor.network.streams[0]
    stream.decoder.deep_supervision = False
    with torch.no_grad():
        expected = stream(torch.from_numpy(normalised)[None, None]).softmax(1)[0]
    assert np.allclose(probabilities(out, "a"), expected, atol=2e-3)


def test_only_the_streams_of_the_case_run(model, cases, tmp_path):
    predictor = ours(model)
    watched = Watched(predictor.network)
    predict(predictor, cases, tmp_path / "out")
    assert [present for present, _ in watched.passes][:: len(watched.passes) // 3] == [(0, 1, 2), (0, 2), (1,)]
    assert watched.streams == {(0, 1, 2), (0, 2), (1,)}


def test_values_never_tell_absence(model, tmp_path):
    """A constant-zero image is an image, and so is a tile of background alone."""
    images = tmp_path / "images"
    write_cases(images, {"a": (0, 1, 2), "b": (1,)})
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((20, 18, 22), np.float32)), str(images / "a_0000.nii.gz"))
    for channel in (1, 2):  # background in all but a corner: most tiles hold nothing else
        volume = read(images / f"a_{channel:04d}.nii.gz")
        volume[4:] = 40
        sitk.WriteImage(sitk.GetImageFromArray(volume), str(images / f"a_{channel:04d}.nii.gz"))
    predictor = ours(model)
    watched = Watched(predictor.network)
    out = predict(predictor, images, tmp_path / "out")
    of_a = [constant for present, constant in watched.passes if present == (0, 1, 2)]
    assert watched.streams == {(0, 1, 2), (1,)} and len(of_a) == len(watched.passes) // 2
    assert (True, True, True) in of_a and all(constant[0] for constant in of_a)
    (images / "a_0000.nii.gz").unlink()
    without = predict(ours(model), images, tmp_path / "without")
    assert not np.allclose(probabilities(out, "a"), probabilities(without, "a"), atol=1e-3)


def test_an_all_zero_image_alone_is_predicted(model, tmp_path):
    (tmp_path / "images").mkdir()
    zero = sitk.GetImageFromArray(np.zeros((20, 18, 22), np.float32))
    sitk.WriteImage(zero, str(tmp_path / "images" / "a_0001.nii.gz"))
    out = predict(ours(model), tmp_path / "images", tmp_path / "out")
    assert np.array_equal(probabilities(out, "a"), by_hand(model, tmp_path / "images", "a", (1,)))


def test_the_selection_ends_when_prediction_fails(model, cases, tmp_path, monkeypatch):
    predictor = ours(model)
    (cases / "a_0000.nii.gz").unlink()

    def fail(_data):
        assert predictor.network.present == (1, 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(predictor, "predict_logits_from_preprocessed_data", fail)
    with pytest.raises(KeyboardInterrupt):
        predict(predictor, cases, tmp_path / "out")
    assert predictor.network.present == (0, 1, 2)


def test_lists_of_files_are_in_the_order_of_the_channels(model, cases, tmp_path):
    files = [[str(cases / f"a_{channel:04d}.nii.gz") for channel in range(3)]]
    predictor = ours(model, only_modalities="FLAIR")
    assert predictor.predict_from_files_sequential(files, None)[0].shape == (20, 18, 22)
    predictor.predict_from_files_sequential(files, str(tmp_path / "out"), True)
    assert np.array_equal(probabilities(tmp_path / "out", "a"), by_hand(model, cases, "a", (2,)))


def test_worker_processes_give_the_same(model, cases, tmp_path):
    here = predict(ours(model), cases, tmp_path / "here")
    ours(model).predict_from_files(str(cases), str(tmp_path / "there"), True, True, 2, 0)
    for case in "abc":
        assert np.array_equal(probabilities(here, case), probabilities(tmp_path / "there", case))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "c_0001.nii.gz").rename(folder / "c_0003.nii.gz"), "c has no channel for c_0003"),
        (
            lambda folder: write_volume(folder / "b_0002.nii.gz", 0, (20, 18, 23)),
            r"b_0000\.nii\.gz \(20 x 18 x 22 voxels of 1 x 1 x 1 mm\), .*b_0002\.nii\.gz \(20 x 18 x 23",
        ),
    ],
)
def test_unfit_cases_are_one_message(model, cases, tmp_path, change, message):
    change(cases)
    with pytest.raises(UsageError, match=message):
        predict(ours(model), cases, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_a_case_without_a_chosen_modality_is_named(model, cases, tmp_path):
    with pytest.raises(UsageError, match="case c has none of T1, FLAIR, only c_0001"):
        predict(ours(model, only_modalities="T1,FLAIR"), cases, tmp_path / "out")
    with pytest.raises(UsageError, match=r"'T5' is no modality of this model; it has T1 \(0\), T2 \(1\), FLAIR \(2\)"):
        ours(model, only_modalities="T5")


def test_other_trainers_need_all_channels(trained_model):
    with pytest.raises(UsageError, match="--modalities CT: a model of nnUNetTrainer needs all channels"):
        make(ExtensionPredictor, trained_model, only_modalities="CT")


def test_groups_of_channels_are_one_modality(tmp_path):
    settings = {"modalities": {"MR": [0, 2], "perfusion": [1]}}
    model = write_maml_model(tmp_path / "model", settings=settings, folds=(0,))
    images = write_cases(tmp_path / "images", {"a": (0, 2)})
    predictor = make(ExtensionPredictor, model, (0,), quiet=True)
    watched = Watched(predictor.network)
    predict(predictor, images, tmp_path / "out")
    assert watched.streams == {(0,)}
    shutil.rmtree(images)
    write_cases(images, {"a": (1, 2)})
    with pytest.raises(UsageError, match="only a part of MR: give channel 0000 too"):
        predict(predictor, images, tmp_path / "out")
