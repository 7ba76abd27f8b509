"""The command line of the converters: exit codes, output, Ctrl-C."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from nnunet_ext.cli.main import main


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return tmp_path


def make_source(folder, shape=(3, 5, 4), number=3):
    generator = np.random.default_rng(0)
    for case in range(1, number + 1):
        values = generator.integers(-1000, 300, shape).astype(np.int16)
        for kind, array in (("ct", values), ("seg", (values > 0).astype(np.uint8))):
            path = folder / "Train" / f"volume-covid19-A-{case:04d}_{kind}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path), useCompression=True, compressionLevel=1)
    return str(folder)


def test_list(capsys):
    assert main(["convert", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("brats", "covid19_20", "covid_ct_seg", "covid_semiseg", "liver_phases", "lits"),
        *("monuseg_text", "mosmed_plus", "msd", "nsclc_pleural_effusion", "qata_cov19", "sarcoma", "sarcoma_ct"),
        *("chestxray14", "chestxr"),
    ]
    assert all("  " in line.strip() for line in lines)  # name and description apart


def test_slices_without_labels_are_to_be_linked(folders, capsys):
    source = folders / "source" / "TrainingSet" / "LungInfection-Train" / "Pseudo-label" / "Imgs"
    source.mkdir(parents=True)
    for patient in "ab":
        values = np.random.default_rng(0).integers(0, 256, (5, 4), dtype=np.uint8)
        Image.fromarray(values).save(source / f"{patient}_1.jpg")
    assert main(["convert", "covid_semiseg", str(folders / "source"), "--id", "303", "--unlabeled", "-np", "1"]) == 0
    out = capsys.readouterr().out
    assert "Dataset303_COVIDSemiSegUnlabeled: 2 train\n" in out
    assert out.endswith("next: nnunet_ext link TARGET --unlabeled 303\n")


def test_several_slices_of_a_volume_are_counted(folders, capsys):
    for patient in "ab":
        for kind in ("image", "mask"):
            path = folders / "source" / patient / f"CT_{kind}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = np.arange(24).reshape(3, 4, 2) > 12  # the last two slices
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values.astype(np.uint8)), str(path))
    command = ["convert", "sarcoma_ct", str(folders / "source"), "--id", "301", "-np", "1"]
    assert main([*command, "--slices", "--window", "0", "1", "--name", "Mine"]) == 0
    out = capsys.readouterr().out
    assert "Dataset301_Mine: 2 train (4 slices)" in out
    assert "next: nnUNetv2_plan_and_preprocess -d 301 --verify_dataset_integrity" in out


def test_what_a_converter_says_about_its_cases_is_printed(folders, capsys):
    for patient in "ab":
        for modality in ("CT", "MR_T1", "PET"):
            for kind in ("image", "mask"):
                path = folders / "source" / patient / f"{modality}_{kind}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                values = np.arange(24).reshape(3, 4, 2) > 12
                SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values.astype(np.uint8)), str(path))
    command = ["convert", "sarcoma", str(folders / "source"), "--id", "310", "-np", "1", "--grid", "PET"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("Dataset310_Sarcoma: 2 train")
    assert lines[1] == "  a CT: covers 100% of the grid, 100% of the tumour; mask Dice 1.000"
    assert len(lines) == 6 and lines[-1].startswith("next: nnUNetv2_plan_and_preprocess -d 310")


def test_convert_then_nothing_to_do(folders, capsys):
    source = make_source(folders / "source")
    command = ["convert", "covid19_20", source, "--id", "115", "--name", "Mine", "-np", "1"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "Dataset115_Mine: 3 train" in out
    assert "next: nnUNetv2_plan_and_preprocess -d 115 --verify_dataset_integrity" in out
    assert main(command) == 0
    assert "is up to date" in capsys.readouterr().out


def test_quiet_says_nothing(folders, capfd):
    assert main(["convert", "covid19_20", make_source(folders / "source"), "--id", "7", "-np", "1", "--quiet"]) == 0
    assert capfd.readouterr() == ("", "")
    assert names(folders / "nnUNet_raw") == ["Dataset007_COVID1920"]


def test_skipped_cases_are_reported(folders, capsys):
    source = make_source(folders / "source")
    (folders / "source" / "Train" / "volume-covid19-A-0002_seg.nii.gz").write_bytes(b"no image")
    command = ["convert", "covid19_20", source, "--id", "115", "-np", "1"]
    assert main(command) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "volume-covid19-A-0002: label volume-covid19-A-0002_seg.nii.gz is unreadable" in captured.err
    assert names(folders / "nnUNet_raw") == []
    assert main([*command, "--skip-bad"]) == 0
    assert "skipped volume-covid19-A-0002: label" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "convert needs DATASET SRC --id ID"),
        (["covid19_20", "src"], "convert needs DATASET SRC --id ID"),
        (["covid1920", "src", "--id", "1"], "did you mean covid19_20?"),
        (["covid19_20", "nowhere", "--id", "1"], "nowhere does not exist"),
        (["covid19_20", "src", "--id", "1", "--task", "lung"], "--task does not apply to covid19_20"),
        (["chestxr", "src", "--id", "1", "--coronacases-window", "-1000", "1"], "--coronacases-window does not apply"),
        (["covid_ct_seg", "src", "--id", "1", "--lists", "x"], "--lists does not apply to covid_ct_seg"),
        (["covid_ct_seg", "src", "--id", "1", "--unlabeled"], "--unlabeled does not apply to covid_ct_seg"),
        (["lits", "src", "--id", "1", "--slices"], "--slices does not apply to lits"),
        (["sarcoma_ct", "src", "--id", "1", "--window", "0", "1"], "give --slices as well"),
        (["lits", "src", "--id", "1", "--grid", "CT"], "--grid does not apply to lits"),
        (["sarcoma_ct", "src", "--id", "1", "--register"], "--register does not apply to sarcoma_ct"),
        (["brats", "src", "--id", "1", "--task", "lung"], "--task lung is not one of labels, regions"),
        (["chestxr", "src", "--id", "1", "--ignore-label-headers"], "--ignore-label-headers does not apply to chestxr"),
    ],
)
@pytest.mark.usefixtures("folders")
def test_usage_errors(capsys, arguments, message):
    assert main(["convert", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("nnunet_ext convert: error: ") and message in error and len(error.splitlines()) == 1


def test_without_nnunet_raw(folders, monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_raw")
    assert main(["convert", "covid19_20", make_source(folders / "source"), "--id", "1", "-np", "1"]) == 1
    assert "nnUNet_raw is not set" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_leaves_nothing(folders):
    source = make_source(folders / "source", shape=(24, 160, 160), number=12)
    raw = folders / "nnUNet_raw"
    command = [sys.executable, "-m", "nnunet_ext.cli.main", "convert", "covid19_20", source, "--id", "115", "-np", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(raw.glob(".*/labelsTr/*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)  # the whole group, as a terminal does
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130, error
    assert "Traceback" not in error and "nnunet_ext convert: interrupted" in error
    assert names(raw) == []
