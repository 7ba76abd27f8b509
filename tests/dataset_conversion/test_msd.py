import numpy as np
import pytest
import SimpleITK

from nnunet_ext.dataset_conversion.msd import plan
from nnunet_ext.dataset_conversion.run import convert
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json, save_json

NAME = "Dataset006_Lung"
NAMES = ("lung_001", "lung_003", "lung_004")


@pytest.fixture
def task(tmp_path, write_nifti, ct):
    """A task of the MSD with three labelled volumes and one without, and the hidden files of its archives."""
    source = tmp_path / "Task06_Lung"
    for seed, name in enumerate((*NAMES, "lung_002")):
        part = "Ts" if name == "lung_002" else "Tr"
        values, label = ct(seed)
        write_nifti(source / f"images{part}" / f"{name}.nii.gz", values)
        if part == "Tr":
            write_nifti(source / "labelsTr" / f"{name}.nii.gz", label)
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (source / folder / "._lung_001.nii.gz").write_bytes(b"\x00\x05\x16\x07")
    content = {
        "name": "Lung",
        "description": "Lung and cancer",
        "reference": "TCIA",
        "licence": "CC-BY-SA 4.0",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "cancer"},
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in NAMES],
        "test": ["./imagesTs/lung_002.nii.gz"],
    }
    save_json(content, source / "dataset.json")
    return source


def change(source, **content):
    save_json(load_json(source / "dataset.json") | content, source / "dataset.json")


def test_task_becomes_a_data_set_of_its_name(raw, task):
    conversion = plan(task)
    assert conversion.name == "Lung"
    manifest = convert(conversion, NAME, processes=1, quiet=True).manifest
    assert {name: entry["split"] for name, entry in manifest["cases"].items()} == {
        "lung_001": "train",
        "lung_002": "test",
        "lung_003": "train",
        "lung_004": "train",
    }
    assert sorted(f.name for f in (raw / NAME / "imagesTs").iterdir()) == ["lung_002_0000.nii.gz"]
    assert not (raw / NAME / "labelsTs").exists()
    dataset = load_json(raw / NAME / "dataset.json")
    assert dataset["channel_names"] == {"0": "CT"} and dataset["labels"] == {"background": 0, "cancer": 1}
    assert dataset["numTraining"] == 3 and dataset["licence"] == "CC-BY-SA 4.0"
    assert list(manifest["tables"]) == ["dataset.json"]
    assert len(load_json(raw / NAME / "splits_final.json")) == 3


def test_a_changed_dataset_json_is_noticed(raw, task):
    convert(plan(task), NAME, processes=1, quiet=True)
    assert not convert(plan(task), NAME, processes=1, quiet=True).written
    change(task, labels={"0": "background", "1": "nodule"})
    with pytest.raises(UsageError, match="--overwrite"):
        convert(plan(task), NAME, processes=1, quiet=True)
    assert raw.is_dir()


def test_several_channels(raw, task, ct):
    for seed, name in enumerate(NAMES):
        frames = [SimpleITK.GetImageFromArray(ct(seed + i)[0]) for i in (0, 10)]
        for frame in frames:
            frame.SetSpacing((0.75, 0.75, 5.0))
            frame.SetOrigin((1.0, -2.0, 3.0))
        SimpleITK.WriteImage(SimpleITK.JoinSeries(frames), str(task / "imagesTr" / f"{name}.nii.gz"))
    change(task, modality={"0": "T2", "1": "ADC"})
    manifest = convert(plan(task), NAME, processes=1, quiet=True, skip_bad=True).manifest
    assert list(manifest["skipped"]) == ["lung_002"]  # still of one channel
    second = SimpleITK.ReadImage(str(raw / NAME / "imagesTr" / "lung_003_0001.nii.gz"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(second), ct(11)[0])
    assert load_json(raw / NAME / "dataset.json")["channel_names"] == {"0": "T2", "1": "ADC"}


def test_missing_files(task):
    (task / "imagesTr" / "lung_001.nii.gz").unlink()
    (task / "labelsTr" / "lung_003.nii.gz").unlink()
    for folder in ("imagesTr", "labelsTr"):
        (task / folder / "lung_004.nii.gz").unlink()
    assert {case.name: case.problem for case in plan(task).cases if case.problem} == {
        "lung_001": "a label map, but no image in imagesTr",
        "lung_003": "no label map in labelsTr",
        "lung_004": "dataset.json lists it, but it is missing",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"modality": "CT"}, "needs 'modality' and 'labels'"),
        ({"labels": {"0": "background", "2": "cancer"}}, "must be numbered 0, 1, 2"),
        ({"labels": {"0": "background", "1": "x", "2": "x"}}, "have different names"),
        ({"modality": {"1": "CT"}}, "modality .* must be numbered"),
    ],
)
def test_unusable_dataset_json(task, content, message):
    change(task, **content)
    with pytest.raises(UsageError, match=message):
        plan(task)


def test_wrong_layout(task):
    with pytest.raises(UsageError, match="imagesTr does not exist; expected the images of one MSD task"):
        plan(task.parent)
    (task / "dataset.json").unlink()
    with pytest.raises(UsageError, match=r"dataset.json does not exist"):
        plan(task)


def test_background_is_called_so_and_a_folder_of_another_name_names_nothing(task):
    change(task, labels={"0": "Background", "1": "cancer"})
    conversion = plan(task.rename(task.parent / "lung"))
    assert conversion.dataset_json["labels"] == {"background": 0, "cancer": 1} and conversion.name is None


@pytest.mark.real_data
def test_real_sample(raw, real_data):
    name = "Dataset004_Hippocampus"
    manifest = convert(plan(real_data / "Task04_Hippocampus"), name, processes=1, quiet=True).manifest
    assert len(manifest["cases"]) == 160 and not manifest["skipped"]
    assert all(entry["label_voxels"]["2"] > 0 for entry in manifest["cases"].values())
    assert load_json(raw / name / "dataset.json")["channel_names"] == {"0": "MRI"}
