import numpy as np
import pytest
import SimpleITK

from nnunet_ext.dataset_conversion.base import BadCaseError
from nnunet_ext.dataset_conversion.covid_ct_seg import BENCHMARK_CASES, folds, patient, plan, to_window
from nnunet_ext.dataset_conversion.run import convert
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json

NAME = "Dataset115_COVIDCTSeg"


@pytest.fixture
def sample(tmp_path, write_nifti, ct):
    """Raw-HU Coronacases and windowed Radiopaedia CTs with three kinds of masks."""
    source = tmp_path / "covid_ct"
    for seed, name in enumerate(("coronacases_001", "coronacases_002", "radiopaedia_4_85506_1")):
        values, label = ct(seed)
        if name.startswith("radiopaedia"):
            values = np.linspace(0, 255, values.size).round().astype(np.uint8).reshape(values.shape)
        write_nifti(source / "COVID-19-CT-Seg_20cases" / f"{name}.nii.gz", values)
        for folder, largest in (("Infection_Mask", 1), ("Lung_Mask", 2), ("Lung_and_Infection_Mask", 3)):
            write_nifti(source / folder / f"{name}.nii.gz", label * np.uint8(largest))
    return source


def test_windowed_values_become_hounsfield():
    # -1250 + 1500 * value / 255: 51 -> -950, 102 -> -650
    values = np.array([0, 51, 102, 255], np.uint8)
    hounsfield, kind = to_window("radiopaedia_4_85506_1", values)
    assert hounsfield.dtype == np.int16 and hounsfield.tolist() == [-1250, -950, -650, 250]
    assert kind == "windowed -1250..250"


def test_raw_values_are_clipped_to_the_same_range():
    hounsfield, kind = to_window("coronacases_001", np.array([-3000, -700, 40, 2000], np.int16))
    assert hounsfield.tolist() == [-1250, -700, 40, 250] and kind == "HU"


def test_coronacases_in_8_bits_may_have_another_window():
    values = np.array([0, 51, 102, 255], np.uint8)
    # -1000 + 2800 * value / 255: 51 -> -440, 102 -> 120, 255 -> 1800, clipped
    assert to_window("coronacases_001", values, (-1000, 1800))[0].tolist() == [-1000, -440, 120, 250]
    assert to_window("radiopaedia_4_85506_1", values, (-1000, 1800))[0].tolist() == [-1250, -950, -650, 250]


def test_neither_hounsfield_nor_windowed():
    with pytest.raises(BadCaseError, match=r"intensities 0..4000 are neither HU"):
        to_window("coronacases_001", np.array([0, 4000]))


def test_conversion_brings_all_to_one_scale(raw, sample):
    manifest = convert(plan(sample), NAME, processes=1, quiet=True).manifest
    assert {name: entry["intensity"] for name, entry in manifest["cases"].items()} == {
        "coronacases_001": "HU",
        "coronacases_002": "HU",
        "radiopaedia_4_85506_1": "windowed -1250..250",
    }
    for name in manifest["cases"]:
        image = SimpleITK.ReadImage(str(raw / NAME / "imagesTr" / f"{name}_0000.nii.gz"))
        values = SimpleITK.GetArrayFromImage(image)
        assert values.dtype == np.int16 and values.min() >= -1250 and values.max() <= 250
        assert image.GetSpacing() == (0.75, 0.75, 5.0) and image.GetOrigin() == (1.0, -2.0, 3.0)


@pytest.mark.parametrize(("task", "labels"), [("infection", 2), ("lung", 3), ("lung_and_infection", 4)])
def test_tasks(raw, sample, task, labels):
    manifest = convert(plan(sample, task=task), NAME, processes=1, quiet=True).manifest
    assert list(load_json(raw / NAME / "dataset.json")["labels"].values()) == list(range(labels))
    entry = manifest["cases"]["coronacases_001"]
    assert entry["label_voxels"][str(labels - 1)] > 0
    assert manifest["options"]["task"] == task


def test_ct_and_mask_without_the_other(sample):
    (sample / "Infection_Mask" / "coronacases_001.nii.gz").unlink()
    (sample / "COVID-19-CT-Seg_20cases" / "coronacases_002.nii.gz").unlink()
    problems = {case.name: case.problem for case in plan(sample).cases}
    assert problems["coronacases_001"] == "no mask in Infection_Mask"
    assert problems["coronacases_002"] == "a mask, but no CT in COVID-19-CT-Seg_20cases"
    assert problems["radiopaedia_4_85506_1"] is None


def test_wrong_options_and_layout(sample, tmp_path):
    with pytest.raises(UsageError, match="--task lungs is not one of infection, lung, lung_and_infection"):
        plan(sample, task="lungs")
    with pytest.raises(UsageError, match="--coronacases-window 5 5"):
        plan(sample, coronacases_window=(5, 5))
    with pytest.raises(UsageError, match="COVID-19-CT-Seg_20cases does not exist; expected CTs"):
        plan(tmp_path)


def test_patients():
    patients = [patient(name) for name in BENCHMARK_CASES]
    assert len(set(patients)) == 18
    assert patient("radiopaedia_10_85902_1") == patient("radiopaedia_10_85902_3") == "radiopaedia_10"
    assert patient("coronacases_001") == "coronacases_001"


def test_benchmark_folds_train_on_4_and_test_on_16():
    patients = {name: patient(name) for name in BENCHMARK_CASES}
    splits = folds(patients)
    assert [(len(fold["train"]), len(fold["val"])) for fold in splits] == [(4, 16)] * 5
    assert sorted(name for fold in splits for name in fold["train"]) == sorted(BENCHMARK_CASES)
    for fold in splits:
        assert not {patients[name] for name in fold["train"]} & {patients[name] for name in fold["val"]}


def test_other_cases_get_patient_folds():
    patients = {name: patient(name) for name in BENCHMARK_CASES[:-1]}
    splits = folds(patients)
    assert sorted(name for fold in splits for name in fold["val"]) == sorted(patients)


@pytest.mark.real_data
def test_real_sample(raw, real_data):
    held_out = ["coronacases_003", "coronacases_008", "radiopaedia_14_85914_0"]
    manifest = convert(plan(real_data / "covid_ct"), NAME, holdout=held_out, processes=2, quiet=True).manifest
    assert len(manifest["cases"]) == 14 and not manifest["skipped"]
    assert {entry["intensity"] for entry in manifest["cases"].values()} == {"windowed -1250..250"}
    assert sorted(f.name for f in (raw / NAME / "labelsTs").iterdir()) == [f"{name}.nii.gz" for name in held_out]
    assert len(load_json(raw / NAME / "splits_final.json")) == 5
