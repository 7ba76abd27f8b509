"""Attention maps of a model of `MAMLTrainer`."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import toy_maml
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from PIL import Image
from toy_maml import CT, NAMES, write_cases, write_maml_model, write_volume
from toy_model import trained_model

from nnunet_ext.evaluation.attention import AttentionTable
from nnunet_ext.evaluation.segmentation import read_geometry
from nnunet_ext.inference.attention import AttentionPredictor, gate_scale
from nnunet_ext.inference.predictor import ExtensionPredictor
from nnunet_ext.utilities.errors import UsageError

__all__ = ["trained_model"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_maml_model(tmp_path_factory.mktemp("results") / "MAMLTrainer__nnUNetPlans__3d_fullres")


def make(model, kind=AttentionPredictor, folds=(0,), **options):
    predictor = kind(device=torch.device("cpu"), allow_tqdm=False, quiet=True, **options)
    predictor.initialize_from_trained_model_folder(str(model), folds)
    return predictor


def read(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def maps(folder):
    return {file.name.removesuffix(".nii.gz"): read(file) for file in sorted(folder.glob("*.nii.gz"))}


def normalised(volume, channel):
    if channel == 0:
        return (volume.clip(CT["percentile_00_5"], CT["percentile_99_5"]) - CT["mean"]) / CT["std"]
    return (volume - volume.mean()) / volume.std()


def naive_gates(network, x, present):
    """Eq. 1 with the tensors concatenated, mean over the channels of the gates."""
    features = []
    for i in present:
        stream = network.streams[i]
        skips = stream.encoder(x[:, i : i + 1])
        up = stream.decoder.transpconvs[0](skips[-1])
        features.append(stream.decoder.stages[0](torch.cat([up, skips[0]], 1)))
    padded = [torch.zeros_like(features[0]) for _ in network.streams]
    for i, feature in zip(present, features, strict=True):
        padded[i] = feature
    attention = network.attention
    dual = attention.fusion(torch.cat(padded, 1))
    gates = []
    for i, feature in zip(present, features, strict=True):
        gate = attention.gates[i]
        gates.append(gate.second(gate.first_activation(gate.first(torch.cat([feature, dual], 1)))).sigmoid().mean(1))
    return torch.stack(gates, 1)


@pytest.mark.parametrize("present", [(0, 1, 2), (0, 2)])
def test_one_tile_equals_eq_1_averaged_over_mirrorings_and_folds(model, tmp_path, present):
    images = tmp_path / "images"
    images.mkdir()
    x = torch.zeros(1, 3, 16, 16, 16)
    for i in present:
        volume = write_volume(images / f"a_{i:04d}.nii.gz", i, (16, 16, 16))
        x[0, i] = torch.from_numpy(normalised(volume, i))
    predictor = make(model, folds=(0, 1))
    predictor.explain(str(images), tmp_path / "out")
    expected, network = [], predictor.network.network
    flips = [axes for n in range(4) for axes in itertools.combinations((2, 3, 4), n)]
    for parameters in predictor.list_of_parameters:
        network.load_state_dict(parameters)
        with torch.no_grad():
            expected += [naive_gates(network, x.flip(axes), present).flip(axes) for axes in flips]
    expected = torch.stack(expected).mean(0)[0].numpy()
    found = maps(tmp_path / "out")
    assert list(found) == sorted(f"a_attention_{NAMES[i]}" for i in present)
    for i, gate in zip(present, expected, strict=True):
        values = found[f"a_attention_{NAMES[i]}"]
        assert values.dtype == np.float32 and np.allclose(values, gate, atol=2e-3)
        assert gate.std() > 5e-3  # constant gates would prove nothing


@given(st.floats(0.02, 1), st.integers(0, 60), st.sampled_from((8, 16, 20)))
def test_scaled_gates_keep_precision_and_do_not_overflow(step_size, surplus, tile):
    """The host's tiles along one axis, their sum cubed for three."""
    weights = compute_gaussian((tile,), value_scaling_factor=1, dtype=torch.float64, device=torch.device("cpu")).numpy()
    total = np.zeros(tile + surplus)
    for start in compute_steps_for_sliding_window((tile + surplus,), (tile,), step_size)[0]:
        total[start : start + tile] += weights
    assert 10 * total.max() ** 3 * gate_scale(step_size) < 65504
    assert step_size < 0.5 or gate_scale(step_size) == 512


def test_files_and_rows_for_what_each_case_has(model, tmp_path, capsys):
    cases = write_cases(tmp_path / "cases", {"a": (0, 1, 2), "b": (0, 2), "c": (1,)})
    table = make(model, use_mirroring=False).explain(str(cases), tmp_path / "out")
    ends = ["", "_FLAIR", "_T1", "_T2"]
    names = [f"a_attention{e}" + ".nii.gz" * bool(e) + ".png" * (not e) for e in ends]
    names += [name.replace("a_", "b_", 1) for name in names if "T2" not in name]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted([*names, "attention.csv"])
    assert [(mean.case, mean.modality) for mean in table.means] == [
        *(("a", name) for name in NAMES),
        ("b", "T1"),
        ("b", "FLAIR"),
    ]
    assert AttentionTable.load(tmp_path / "out") == table
    assert "1 of 3 cases left out, one modality alone passes no attention: c\n" in capsys.readouterr().out


def test_means_are_those_of_the_files(model, tmp_path):
    """Over the crop, and over the segmentation that the other predictor writes: the same forward passes."""
    cases = write_cases(tmp_path / "cases", {"a": (0, 1, 2)})
    for file in cases.iterdir():
        volume = read(file)
        volume[:4], volume[..., -3:] = 0, 0
        sitk.WriteImage(sitk.GetImageFromArray(volume), str(file))
    table = make(model).explain(str(cases), tmp_path / "out")
    make(model, ExtensionPredictor).predict_from_files(str(cases), str(tmp_path / "seg"), False, True, 0, 0)
    foreground = read(tmp_path / "seg" / "a.nii.gz") > 0
    assert 0 < foreground.mean() < 0.7
    for mean in table.means:
        values = read(tmp_path / "out" / f"a_attention_{mean.modality}.nii.gz")
        assert not values[:4].any() and not values[..., -3:].any()
        crop = values[4:, :, :-3]
        assert crop.min() > 0 and crop.max() < 1
        assert mean.image == pytest.approx(crop.mean(dtype=float), abs=1e-9)
        assert mean.foreground == pytest.approx(values[foreground].mean(dtype=float), abs=1e-9)


def test_the_network_runs_no_more_often_than_for_the_segmentation(model, tmp_path):
    cases = write_cases(tmp_path / "cases", {"a": (0, 1, 2)})
    passes = []
    for kind in (AttentionPredictor, ExtensionPredictor):
        predictor = make(model, kind, use_mirroring=False)
        network = getattr(predictor.network, "network", predictor.network)
        network.streams[0].encoder.register_forward_hook(lambda *_, kind=kind: passes.append(kind))
        if kind is AttentionPredictor:
            predictor.explain(str(cases), tmp_path / "out")
        else:
            predictor.predict_from_files(str(cases), str(tmp_path / "seg"), False, True, 0, 0)
    assert passes.count(AttentionPredictor) == passes.count(ExtensionPredictor) > 1


def test_maps_land_on_the_grid_of_the_image(model, tmp_path, monkeypatch):
    """Anisotropic and oblique, cropped, axes transposed by the plans; gates that show the first channel."""
    folder = tmp_path / "MAMLTrainer__nnUNetPlans__3d_fullres"
    write_maml_model(folder, folds=(0,))
    plans = json.loads((folder / "plans.json").read_text())
    plans |= {"transpose_forward": [2, 0, 1], "transpose_backward": [1, 2, 0]}
    (folder / "plans.json").write_text(json.dumps(plans))
    z, y, x = np.meshgrid(np.arange(14), np.arange(26), np.arange(22), indexing="ij")
    volume = (40 + 1.5 * z - 0.8 * y + 1.1 * x + 2 * np.sin(x / 3) * np.cos(y / 4)).astype(np.float32)
    volume[:, :3], volume[12:] = 0, 0
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing((0.7, 1.2, 2.5))
    image.SetOrigin((-30.5, 12.25, 7))
    angle = 0.3
    image.SetDirection((np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, -1))
    images = tmp_path / "images"
    images.mkdir()
    for channel in (0, 1):
        sitk.WriteImage(image, str(images / f"a_{channel:04d}.nii.gz"))
    predictor = make(folder, use_mirroring=False)

    def forward(x, return_attention):
        return torch.zeros(1, 2, *x.shape[2:]), x[:, :2].sigmoid()

    monkeypatch.setattr(predictor.network.network, "forward", forward)
    predictor.explain(str(images), tmp_path / "out")
    expected = 1 / (1 + np.exp(-normalised(volume, 0)))
    for name in ("T1", "T2"):
        file = tmp_path / "out" / f"a_attention_{name}.nii.gz"
        assert read_geometry(file).differences(read_geometry(images / "a_0000.nii.gz")) == []
    found = read(tmp_path / "out" / "a_attention_T1.nii.gz")
    assert not found[:, :3].any() and not found[12:].any() and found[:12, 3:].all()
    assert np.abs(found - expected)[1:11, 4:25, 1:21].max() < 0.02


def test_pictures_of_a_2d_model(tmp_path, monkeypatch):
    """Maps of PNG are 2D NIfTI files; a channel of an RGB file is a modality."""
    dataset, plans = toy_maml.maml_dataset(), toy_maml.maml_plans()
    configuration = plans["configurations"]["3d_fullres"] | {"patch_size": [16, 16], "spacing": [1.0, 1.0]}
    architecture = json.dumps(configuration["architecture"]).replace("Conv3d", "Conv2d").replace("Norm3d", "Norm2d")
    architecture = architecture.replace("[3, 3, 3]", "[3, 3]").replace("[1, 1, 1]", "[1, 1]")
    configuration["architecture"] = json.loads(architecture.replace("[2, 2, 2]", "[2, 2]"))
    plans |= {"image_reader_writer": "NaturalImage2DIO", "configurations": {"3d_fullres": configuration}}
    monkeypatch.setattr(toy_maml, "maml_dataset", lambda _: dataset | {"file_ending": ".png"})
    monkeypatch.setattr(toy_maml, "maml_plans", lambda *_: plans)
    folder = write_maml_model(tmp_path / "model", folds=(0,))
    (tmp_path / "images").mkdir()
    pixels = np.random.default_rng(0).integers(1, 200, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "a_0000.png")
    for i in (0, 2):
        Image.fromarray(pixels[..., i]).save(tmp_path / "images" / f"b_{i:04d}.png")
    table = make(folder, use_mirroring=False).explain(str(tmp_path / "images"), tmp_path / "out")
    assert [len(modalities) for modalities in table.cases.values()] == [3, 2]
    found = maps(tmp_path / "out")
    assert len(found) == 5 and all(values.shape == (20, 24) for values in found.values())
    assert np.allclose(
        [values.mean() for values in found.values()], [m.image for m in sorted(table.means, key=by_file)]
    )


def by_file(mean):
    return f"{mean.case}_attention_{mean.modality}"


def test_processes_give_the_same(model, tmp_path):
    cases = write_cases(tmp_path / "cases", {"a": (0, 1, 2), "b": (0, 2)})
    here = make(model, use_mirroring=False).explain(str(cases), tmp_path / "here")
    there = make(model, use_mirroring=False).explain(str(cases), tmp_path / "there", 1, 1)
    assert here == there
    ours, theirs = maps(tmp_path / "here"), maps(tmp_path / "there")
    assert ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_what_is_not_chosen_is_absent(model, tmp_path):
    cases = write_cases(tmp_path / "cases", {"a": (0, 1, 2)})
    chosen = make(model, use_mirroring=False, only_modalities="T1,FLAIR").explain(str(cases), tmp_path / "chosen")
    (cases / "a_0001.nii.gz").unlink()
    assert make(model, use_mirroring=False).explain(str(cases), tmp_path / "absent") == chosen


def test_one_modality_passes_attention_where_no_stream_stands_alone(tmp_path):
    folder = write_maml_model(tmp_path / "model", settings={"ablation": "ma_only"}, folds=(0,))
    cases = write_cases(tmp_path / "cases", {"c": (1,)})
    make(folder, use_mirroring=False).explain(str(cases), tmp_path / "out")
    (values,) = maps(tmp_path / "out").values()
    assert 0 < values.min() < values.max() < 1


def test_refused_before_any_work(model, trained_model, tmp_path):
    with pytest.raises(UsageError, match="trained by nnUNetTrainer, which has no modality-aware attention; name"):
        make(trained_model)
    ensemble = write_maml_model(tmp_path / "ensemble", settings={"ablation": "ensemble"}, folds=(0,))
    with pytest.raises(UsageError, match="with ablation=ensemble, the mean of streams without attention"):
        make(ensemble)
    cases = write_cases(tmp_path / "cases", {"a": (0,), "b": (2,)})
    with pytest.raises(UsageError, match="each of the 2 cases has one modality alone"):
        make(model).explain(str(cases), tmp_path / "out")
    assert not (tmp_path / "out").exists()
