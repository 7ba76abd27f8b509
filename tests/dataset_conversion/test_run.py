import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from nnunet_ext.dataset_conversion import chestxr, covid19_20
from nnunet_ext.dataset_conversion.run import convert, full_name
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json, save_json, sha256

NAME = "Dataset115_COVID1920"


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def run(source, **options):
    return convert(covid19_20.plan(source), NAME, **({"processes": 1, "quiet": True} | options))


def bad_label(source, write_nifti, number=11):
    write_nifti(source / "Train" / f"volume-covid19-A-{number:04d}_seg.nii.gz", np.full((4, 8, 6), 7, np.uint8))


def test_layout_and_manifest(raw, challenge):
    source = challenge(unlabelled=(1,))
    outcome = run(source)
    assert outcome.written and outcome.folder == raw / NAME
    assert load_json(raw / NAME / "manifest.json") == outcome.manifest
    assert names(raw / NAME) == [
        *("dataset.json", "imagesTr", "imagesTs", "labelsTr", "manifest.json", "splits_final.json"),
    ]
    assert names(raw) == [NAME]
    entry = outcome.manifest["cases"]["volume-covid19-A-0011"]
    assert entry["patient"] == "0011" and entry["split"] == "train"
    image = "Train/volume-covid19-A-0011_ct.nii.gz"
    assert entry["sources"][image] == sha256(source / image)
    dataset = load_json(raw / NAME / "dataset.json")
    assert dataset["name"] == NAME
    assert dataset["channel_names"] == {"0": "CT"}
    assert dataset["labels"] == {"background": 0, "lesion": 1}
    assert dataset["numTraining"] == 6
    assert dataset["file_ending"] == ".nii.gz"


def test_result_does_not_depend_on_the_number_of_workers(raw, challenge, tree):
    source = challenge()
    run(source, processes=1)
    one = tree(raw / NAME)
    run(source, processes=2, overwrite=True)
    assert tree(raw / NAME) == one


def test_second_run_does_nothing(raw, challenge):
    source = challenge()
    run(source)
    before = {f: f.stat().st_mtime_ns for f in (raw / NAME).rglob("*")}
    assert not run(source).written
    assert {f: f.stat().st_mtime_ns for f in (raw / NAME).rglob("*")} == before


@pytest.mark.parametrize("change", ["content", "new case", "option", "lost file", "no manifest"])
def test_a_change_needs_overwrite(raw, challenge, write_nifti, ct, change):
    source = challenge()
    run(source)
    options = {}
    if change == "content":
        # Not in place: the converted image may be a link to the source.
        file = source / "Train" / "volume-covid19-A-0011_ct.nii.gz"
        file.unlink()
        write_nifti(file, ct(99)[0])
    elif change == "new case":
        challenge((3, 11, 16, 25, 31, 34, 38))
    elif change == "option":
        options = {"holdout": ["volume-covid19-A-0003"]}
    elif change == "lost file":
        (raw / NAME / "labelsTr" / "volume-covid19-A-0003.nii.gz").unlink()
    else:
        (raw / NAME / "manifest.json").unlink()
    with pytest.raises(UsageError, match=r"exists and is incomplete or differs .* --overwrite"):
        run(source, **options)
    assert run(source, overwrite=True, **options).written
    assert not run(source, **options).written
    assert names(raw) == [NAME]


def test_holdout_moves_cases_to_the_test_folders(raw, challenge):
    run(challenge(), holdout=["volume-covid19-A-0003"])
    assert names(raw / NAME / "imagesTs") == ["volume-covid19-A-0003_0000.nii.gz"]
    assert names(raw / NAME / "labelsTs") == ["volume-covid19-A-0003.nii.gz"]
    assert load_json(raw / NAME / "dataset.json")["numTraining"] == 5
    splits = load_json(raw / NAME / "splits_final.json")
    assert all("volume-covid19-A-0003" not in fold["train"] + fold["val"] for fold in splits)


def test_unknown_holdout_lists_near_matches(raw, challenge):
    with pytest.raises(UsageError, match=r"--holdout volume-covid19-A-00031: no such case; near matches: .*A-0003"):
        run(challenge(), holdout=["volume-covid19-A-00031"])
    assert names(raw) == []


@pytest.mark.usefixtures("raw")
def test_holding_out_half_a_patient_is_refused(challenge, write_nifti, ct):
    source = challenge()
    for kind, values in zip(("ct", "seg"), ct(50), strict=True):
        write_nifti(source / "Train" / f"volume-covid19-A-0011_1_{kind}.nii.gz", values)
    with pytest.raises(UsageError, match="patient 0011 would be in two splits"):
        run(source, holdout=["volume-covid19-A-0011"])
    assert run(source, holdout=["volume-covid19-A-0011", "volume-covid19-A-0011_1"]).written


@pytest.mark.parametrize("processes", [1, 2])
def test_all_bad_cases_are_named_and_nothing_is_written(raw, challenge, write_nifti, processes):
    source = challenge()
    bad_label(source, write_nifti)
    (source / "Train" / "volume-covid19-A-0025_seg.nii.gz").unlink()
    with pytest.raises(UsageError) as error:
        run(source, processes=processes)
    message = str(error.value)
    assert "2 of 6 cases cannot be converted" in message and "--skip-bad" in message
    assert "volume-covid19-A-0011: label out of range: 7; expected 0 to 1" in message
    assert "volume-covid19-A-0025: no volume-covid19-A-0025_seg.nii.gz beside it" in message
    assert names(raw) == []


def test_skip_bad_converts_the_rest_and_records_the_skipped(raw, challenge, write_nifti):
    source = challenge()
    bad_label(source, write_nifti)
    manifest = run(source, skip_bad=True).manifest
    assert list(manifest["skipped"]) == ["volume-covid19-A-0011"]
    assert manifest["skipped"]["volume-covid19-A-0011"]["reason"].startswith("label out of range")
    assert len(manifest["cases"]) == load_json(raw / NAME / "dataset.json")["numTraining"] == 5
    assert not (raw / NAME / "imagesTr" / "volume-covid19-A-0011_0000.nii.gz").exists()
    assert not run(source, skip_bad=True).written
    with pytest.raises(UsageError, match="--overwrite"):
        run(source)  # would now have to name the bad case


def test_skip_bad_with_no_good_case(raw, challenge, write_nifti):
    source = challenge((3,))
    bad_label(source, write_nifti, 3)
    with pytest.raises(UsageError, match="1 of 1 cases cannot be converted; check the source folder"):
        run(source, skip_bad=True)
    assert names(raw) == []


def interrupt(_case, folder):
    (folder / "half").write_text("written")
    raise KeyboardInterrupt


def crash(_case, folder):
    (folder / "half").write_text("written")
    raise MemoryError


@pytest.mark.parametrize(("process", "error"), [(interrupt, KeyboardInterrupt), (crash, MemoryError)])
def test_interruption_leaves_what_was_there(raw, challenge, tree, process, error):
    source = challenge()
    broken = dataclasses.replace(covid19_20.plan(source), process=process)
    with pytest.raises(error):
        convert(broken, NAME, processes=1, quiet=True)
    assert names(raw) == []
    run(source)
    before = tree(raw)
    with pytest.raises(error):
        convert(broken, NAME, processes=1, quiet=True, overwrite=True)
    assert tree(raw) == before


def test_dead_worker_leaves_nothing(raw, challenge, tmp_path, monkeypatch):
    (tmp_path / "lethal_case.py").write_text("import os\ndef die(case, folder):\n    os._exit(9)\n")
    monkeypatch.syspath_prepend(tmp_path)
    from lethal_case import die

    broken = dataclasses.replace(covid19_20.plan(challenge()), process=die)
    with pytest.raises(UsageError, match="a worker process died while converting covid19_20"):
        convert(broken, NAME, processes=2, quiet=True)
    assert names(raw) == []


def test_failure_of_the_last_rename_restores_the_old_data(raw, challenge, tree, monkeypatch):
    source = challenge()
    run(source)
    before = tree(raw)
    original = type(raw).rename

    def rename(self, target):
        if self.name.endswith(".new"):
            raise OSError("disk gone")
        return original(self, target)

    monkeypatch.setattr(type(raw), "rename", rename)
    with pytest.raises(OSError, match="disk gone"):
        run(source, overwrite=True)
    assert tree(raw) == before


def test_id_of_another_data_set(raw, challenge):
    (raw.parent / "nnUNet_results" / "Dataset115_Other").mkdir()
    with pytest.raises(UsageError, match=r"ID 115 belongs to Dataset115_Other in nnUNet_results.*--name Other"):
        run(challenge())


def test_relations_survive_overwrite(raw, challenge):
    source = challenge()
    run(source)
    file = raw / NAME / "dataset.json"
    save_json(load_json(file) | {"nnunet_ext": {"xray": [700]}}, file)
    run(source, overwrite=True)
    assert load_json(file)["nnunet_ext"] == {"xray": [700]}


@pytest.mark.usefixtures("raw")
def test_own_block_is_not_overruled_by_old_relations(class_folders):
    options = {"processes": 1, "quiet": True}
    folder = convert(chestxr.plan(class_folders), "Dataset700_ChestXR", **options).folder
    content = load_json(folder / "dataset.json")
    content["nnunet_ext"]["classification"]["classes"] = ["old"]
    save_json(content, folder / "dataset.json")
    convert(chestxr.plan(class_folders), "Dataset700_ChestXR", overwrite=True, **options)
    written = load_json(folder / "dataset.json")["nnunet_ext"]["classification"]
    assert written["classes"] == ["healthy", "pneumonia", "covid"]


def test_preprocessed_splits_follow(raw, challenge):
    preprocessed = raw.parent / "nnUNet_preprocessed" / NAME
    source = challenge()
    run(source)
    assert not preprocessed.exists()  # planning copies the splits when it makes the folder
    preprocessed.mkdir()
    (preprocessed / "splits_final.json").write_text("[]")
    run(source, overwrite=True)
    assert load_json(preprocessed / "splits_final.json") == load_json(raw / NAME / "splits_final.json")


def test_names_and_ids():
    assert full_name(7, "A-b_1") == "Dataset007_A-b_1"
    with pytest.raises(UsageError, match=r"--id 1000 is outside the range \[1, 999\]"):
        full_name(1000, "A")
    with pytest.raises(UsageError, match="--name 'a/b'"):
        full_name(1, "a/b")


@pytest.mark.usefixtures("raw")
def test_no_worker(challenge):
    with pytest.raises(UsageError, match="-np 0 must be at least 1"):
        run(challenge(), processes=0)


@pytest.mark.slow
def test_nnunet_accepts_the_data_and_takes_over_the_splits(raw, challenge):
    run(challenge((3, 11, 16, 25, 31, 34)))
    planner = (
        "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry as e; e()"
    )
    arguments = ["-d", "115", "--verify_dataset_integrity", "--no_pp", "-npfp", "1", "-c", "3d_fullres"]
    done = subprocess.run([sys.executable, "-c", planner, *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verify_dataset_integrity Done" in done.stdout
    preprocessed = raw.parent / "nnUNet_preprocessed" / NAME
    assert load_json(preprocessed / "splits_final.json") == load_json(raw / NAME / "splits_final.json")
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    assert plans["configurations"]["3d_fullres"]["normalization_schemes"] == ["CTNormalization"]
