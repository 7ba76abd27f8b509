import json
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK

from nnunet_ext.dataset_conversion.liver_phases import plan
from nnunet_ext.dataset_conversion.run import convert
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json, save_json

NAME = "Dataset320_LiverPhases"


@pytest.fixture
def source(tmp_path, write_nifti, ct):
    """Three patients; VP is AP + 50."""
    for seed in range(3):
        values, label = ct(seed)
        folder = tmp_path / "liver" / f"P{seed:03d}"
        write_nifti(folder / "AP.nii.gz", values)
        write_nifti(folder / "VP.nii.gz", values + np.int16(50))
        write_nifti(folder / "label.nii.gz", label)
    return tmp_path / "liver"


def run(source, **options):
    return convert(plan(source), NAME, processes=1, quiet=True, **options)


def test_both_phases_are_ct_and_have_names(raw, source, ct):
    run(source)
    dataset = load_json(raw / NAME / "dataset.json")
    assert dataset["channel_names"] == {"0": "CT", "1": "CT"}
    assert dataset["nnunet_ext"] == {"modality_names": ["AP", "VP"]}
    assert dataset["labels"] == {"background": 0, "tumour": 1}
    for index, offset in enumerate((0, 50)):
        image = SimpleITK.ReadImage(str(raw / NAME / "imagesTr" / f"P001_{index:04d}.nii.gz"))
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), ct(1)[0] + offset)


def test_names_are_written_anew_and_links_kept(raw, source):
    run(source)
    file = raw / NAME / "dataset.json"
    save_json(load_json(file) | {"nnunet_ext": {"modality_names": ["old"], "xray": [700]}}, file)
    run(source, overwrite=True)
    assert load_json(file)["nnunet_ext"] == {"xray": [700], "modality_names": ["AP", "VP"]}


def test_names_go_with_the_converter_that_wrote_them(raw, source):
    run(source)
    conversion = plan(source)
    del conversion.dataset_json["nnunet_ext"]
    convert(conversion, NAME, processes=1, quiet=True, overwrite=True)
    assert "nnunet_ext" not in load_json(raw / NAME / "dataset.json")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"spacing": (0.75, 0.75, 4.0)}, r"spacing mismatch: AP \(0.75, 0.75, 5\), VP \(0.75, 0.75, 4\)"),
        ({"origin": (1.0, -2.0, 13.0)}, r"origin mismatch: AP \(1, -2, 3\), VP \(1, -2, 13\)"),
    ],
)
def test_phases_on_different_grids(raw, source, write_nifti, ct, header, message):
    write_nifti(source / "P001" / "VP.nii.gz", ct(1)[0], **header)
    with pytest.raises(UsageError, match=f"P001: {message}"):
        run(source)
    assert not list(raw.iterdir())


def test_phases_of_different_shape(raw, source, write_nifti, ct):
    write_nifti(source / "P002" / "VP.nii.gz", ct(1)[0][1:])
    with pytest.raises(UsageError, match=r"P002: shape mismatch: AP \(6, 8, 4\), VP \(6, 8, 3\) \(x, y, z\)"):
        run(source)


def test_header_rounding_is_repaired(raw, source, write_nifti, ct):
    write_nifti(source / "P001" / "VP.nii.gz", ct(1)[0], origin=(1.01, -2.0, 3.0))
    entry = run(source).manifest["cases"]["P001"]
    assert entry["header_copied_from_first_channel"] == {"VP.nii.gz": ["origin"]}
    phases = [SimpleITK.ReadImage(str(raw / NAME / file)) for file in entry["files"][:2]]
    assert phases[0].GetOrigin() == phases[1].GetOrigin()


def test_missing_files_are_named(source):
    (source / "P000" / "VP.nii.gz").unlink()
    (source / "P001" / "AP.nii.gz").unlink()
    (source / "P001" / "label.nii.gz").unlink()
    assert [case.problem for case in plan(source).cases] == [
        "no VP.nii.gz",
        "no AP.nii.gz and no label.nii.gz",
        None,
    ]


def test_holdout_and_second_run(raw, source):
    manifest = run(source, holdout=["P001"]).manifest
    assert manifest["cases"]["P001"]["split"] == "test"
    assert sorted(manifest["cases"]["P001"]["sources"]) == ["P001/AP.nii.gz", "P001/VP.nii.gz", "P001/label.nii.gz"]
    assert not run(source, holdout=["P001"]).written


def test_wrong_layout(tmp_path):
    with pytest.raises(UsageError, match=r"holds no PATIENT/AP.nii.gz"):
        plan(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        plan(tmp_path / "nowhere")


@pytest.mark.slow
def test_nnunet_plans_ct_normalisation_for_both(raw, source):
    run(source)
    planner = (
        "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry as e; e()"
    )
    arguments = ["-d", "320", "--verify_dataset_integrity", "--no_pp", "-npfp", "1", "-c", "3d_fullres"]
    done = subprocess.run([sys.executable, "-c", planner, *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = raw.parent / "nnUNet_preprocessed" / NAME
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    assert plans["configurations"]["3d_fullres"]["normalization_schemes"] == ["CTNormalization"] * 2
    assert load_json(folder / "dataset.json")["nnunet_ext"] == {"modality_names": ["AP", "VP"]}
