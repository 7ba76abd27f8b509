import numpy as np
import pytest
import SimpleITK

from nnunet_ext.dataset_conversion.brats import patient, plan
from nnunet_ext.dataset_conversion.run import convert
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json

NAME = "Dataset137_BraTS"
OLD = ("t1", "t1ce", "t2", "flair", "seg")
NEW = ("t1n", "t1c", "t2w", "t2f", "seg")
UP_TO_2021 = ("BraTS2021_00000", "BraTS2021_00002", "BraTS2021_00003")
FROM_2023 = ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00007-000", "BraTS-GLI-00008-000")


@pytest.fixture
def write_case(write_nifti):
    """Contrast i of seed s has values around 1000 i + 10 s; the label map holds `values` and 0."""

    def write(folder, name, seed, values):
        kinds, separator = (NEW, "-") if name.startswith("BraTS-") else (OLD, "_")
        generator = np.random.default_rng(seed)
        for index, kind in enumerate(kinds[:-1]):
            contrast = (1000 * index + 10 * seed + generator.integers(0, 9, (4, 8, 6))).astype(np.int16)
            write_nifti(folder / name / f"{name}{separator}{kind}.nii.gz", contrast)
        label = np.zeros((4, 8, 6), np.uint8)
        for index, value in enumerate(values):
            label[index, : index + 1, 2] = value  # label number i has i + 1 voxels
        write_nifti(folder / name / f"{name}{separator}seg.nii.gz", label)
        return label

    return write


@pytest.fixture
def old(tmp_path, write_case):
    for seed, name in enumerate(UP_TO_2021):
        write_case(tmp_path / "brats", name, seed, (1, 2, 4))
    return tmp_path / "brats"


@pytest.fixture
def new(tmp_path, write_case):
    """Two time points of one patient; the last patient has a resection cavity."""
    for seed, name in enumerate(FROM_2023):
        write_case(tmp_path / "gli", name, seed, (1, 2, 3, 4) if name == FROM_2023[-1] else (1, 2, 3))
    return tmp_path / "gli"


def run(source, task="labels", **options):
    return convert(plan(source, task=task), NAME, processes=1, quiet=True, **options)


def read(path):
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


@pytest.mark.parametrize("release", ["old", "new"])
def test_channels_are_in_one_order_whatever_the_names(raw, request, release):
    source = request.getfixturevalue(release)
    manifest = run(source).manifest
    name = list(manifest["cases"])[1]
    images = [read(raw / NAME / "imagesTr" / f"{name}_{index:04d}.nii.gz") for index in range(4)]
    assert [round(float(image.mean()), -3) for image in images] == [0, 1000, 2000, 3000]
    assert load_json(raw / NAME / "dataset.json")["channel_names"] == {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"}
    assert len(manifest["cases"][name]["sources"]) == len(manifest["cases"][name]["files"]) == 5


def test_labels_are_those_of_nnunet(raw, old, tmp_path):
    from nnunetv2.dataset_conversion.Dataset137_BraTS21 import copy_BraTS_segmentation_and_convert_labels_to_nnUNet

    manifest = run(old).manifest
    copy_BraTS_segmentation_and_convert_labels_to_nnUNet(
        str(old / UP_TO_2021[0] / f"{UP_TO_2021[0]}_seg.nii.gz"), str(tmp_path / "theirs.nii.gz")
    )
    ours = read(raw / NAME / "labelsTr" / f"{UP_TO_2021[0]}.nii.gz")
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, read(tmp_path / "theirs.nii.gz"))
    # 1 voxel of non-enhancing tumour (1), 2 of edema (2), 3 of enhancing tumour (4)
    assert manifest["cases"][UP_TO_2021[0]]["label_voxels"] == {"0": 192 - 6, "1": 2, "2": 1, "3": 3}
    assert load_json(raw / NAME / "dataset.json")["labels"] == {
        "background": 0,
        "edema": 1,
        "non-enhancing": 2,
        "enhancing": 3,
    }


def test_enhancing_tumour_is_3_and_4_is_the_resection_cavity_since_2023(raw, new):
    cases = run(new).manifest["cases"]
    assert cases[FROM_2023[0]]["label_voxels"] == {"0": 192 - 6, "1": 2, "2": 1, "3": 3, "4": 0}
    assert cases[FROM_2023[-1]]["label_voxels"]["4"] == 4
    assert load_json(raw / NAME / "dataset.json")["labels"]["RC"] == 4


def test_without_a_cavity_there_is_no_label_for_it(raw, new, write_case):
    write_case(new, FROM_2023[-1], 0, (1, 2, 3))
    run(new)
    assert "RC" not in load_json(raw / NAME / "dataset.json")["labels"]


@pytest.mark.parametrize(("release", "cavity"), [("old", False), ("new", True)])
def test_regions_as_nnunet_reads_them(raw, request, release, cavity):
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    run(request.getfixturevalue(release), task="regions")
    dataset = load_json(raw / NAME / "dataset.json")
    manager = LabelManager(dataset["labels"], dataset["regions_class_order"])
    assert manager.has_regions
    assert [list(np.atleast_1d(region)) for region in manager.foreground_regions] == [
        *([1, 2, 3], [2, 3], [3]),
        *([[4]] if cavity else []),
    ]
    # A voxel in all three regions of the tumour is enhancing tumour, one in the whole tumour only is edema.
    probabilities = np.zeros((3 + cavity, 1, 1, 3))
    probabilities[:3, ..., 0] = probabilities[:1, ..., 1] = probabilities[-1, ..., 2] = 1
    drawn = manager.convert_probabilities_to_segmentation(probabilities)
    assert np.asarray(drawn).ravel().tolist() == [3, 1, 4 if cavity else 3]


def test_grades_are_folders(raw, tmp_path, write_case):
    source = tmp_path / "MICCAI_BraTS_2018_Data_Training"
    write_case(source / "HGG", "Brats18_2013_2_1", 0, (1, 2, 4))
    write_case(source / "LGG", "Brats18_TCIA09_141_1", 1, (1, 2))
    manifest = run(source).manifest
    assert {name: entry["patient"] for name, entry in manifest["cases"].items()} == {
        "Brats18_2013_2_1": "Brats18_2013_2",
        "Brats18_TCIA09_141_1": "Brats18_TCIA09_141",
    }


def test_time_points_of_a_patient_stay_together(raw, new):
    run(new)
    for fold in load_json(raw / NAME / "splits_final.json"):
        patients = [{patient(name) for name in fold[part]} for part in ("train", "val")]
        assert not patients[0] & patients[1]
    with pytest.raises(UsageError, match="patient BraTS-GLI-00005 would be in two splits"):
        run(new, overwrite=True, holdout=[FROM_2023[0]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BraTS-GLI-02062-101", "BraTS-GLI-02062"),
        ("Brats17_CBICA_AAB_1", "Brats17_CBICA_AAB"),
        ("BraTS19_2013_10_1", "BraTS19_2013_10"),
        ("BraTS20_Training_001", "BraTS20_Training_001"),
        ("BraTS2021_00002", "BraTS2021_00002"),
    ],
)
def test_patients(name, expected):
    assert patient(name) == expected


def test_what_lacks_is_named(raw, old):
    (old / UP_TO_2021[0] / f"{UP_TO_2021[0]}_t1ce.nii.gz").unlink()
    (old / UP_TO_2021[0] / f"{UP_TO_2021[0]}_t1.nii.gz").unlink()
    (old / UP_TO_2021[1] / f"{UP_TO_2021[1]}_seg.nii.gz").unlink()
    with pytest.raises(UsageError) as error:
        run(old)
    message = str(error.value)
    assert "BraTS2021_00000: no T1 (BraTS2021_00000_t1) and no T1ce (BraTS2021_00000_t1ce)" in message
    assert "BraTS2021_00002: no label map (BraTS2021_00002_seg)" in message
    assert not list(raw.iterdir())


def test_cases_without_labels_in_a_folder_of_that_name_are_test_cases(raw, tmp_path, write_case):
    source = tmp_path / "all"
    for seed, name in enumerate(FROM_2023):
        part = "ValidationData" if name == FROM_2023[-1] else "TrainingData"
        write_case(source / f"ASNR-MICCAI-BraTS2023-GLI-Challenge-{part}", name, seed, (1, 2, 3))
    (next(source.glob("*ValidationData")) / FROM_2023[-1] / f"{FROM_2023[-1]}-seg.nii.gz").unlink()
    assert run(source).manifest["cases"][FROM_2023[-1]]["split"] == "test"
    assert len(list((raw / NAME / "imagesTs").iterdir())) == 4
    (next(source.glob("*ValidationData")) / FROM_2023[-1] / f"{FROM_2023[-1]}-t2f.nii.gz").unlink()
    assert {case.problem for case in plan(source).cases} == {None, "no FLAIR (BraTS-GLI-00008-000-t2f)"}


@pytest.mark.parametrize(
    ("label", "message"), [((1, 2, 3), "3; expected 0, 1, 2, 4"), ((1, 2, 5), "5; expected 0, 1, 2, 4")]
)
def test_label_of_another_release(old, raw, write_case, label, message):
    write_case(old, UP_TO_2021[1], 0, label)
    with pytest.raises(UsageError, match=f"BraTS2021_00002: label out of range: {message}"):
        run(old)


def test_contrast_on_another_grid(old, raw, write_nifti):
    write_nifti(old / UP_TO_2021[0] / f"{UP_TO_2021[0]}_t2.nii.gz", np.eye(6, 6, dtype=np.int16)[None].repeat(4, 0))
    with pytest.raises(
        UsageError, match=r"BraTS2021_00000: shape mismatch: BraTS2021_00000_t1 \(6, 8, 4\), BraTS2021_00000_t2"
    ):
        run(old)


def test_empty_contrast_is_named(old, raw, write_nifti):
    write_nifti(old / UP_TO_2021[0] / f"{UP_TO_2021[0]}_flair.nii.gz", np.zeros((4, 8, 6), np.int16))
    with pytest.raises(UsageError, match=r"image BraTS2021_00000_flair.nii.gz is empty"):
        run(old)


def test_uncompressed_files_are_compressed(raw, old):
    for file in list(old.rglob("*_t2.nii.gz")):
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(file)), str(file).removesuffix(".gz"))
        file.unlink()
    assert run(old).manifest["cases"][UP_TO_2021[0]]["files"][2] == "imagesTr/BraTS2021_00000_0002.nii.gz"
    assert read(raw / NAME / "imagesTr" / "BraTS2021_00000_0002.nii.gz").mean() > 1999


@pytest.mark.parametrize("task", ["labels", "regions"])
def test_second_run_does_nothing(raw, new, task):
    assert run(new, task=task).written
    assert not run(new, task=task).written


def test_a_changed_contrast_needs_overwrite(raw, old, write_nifti):
    run(old)
    file = old / UP_TO_2021[0] / f"{UP_TO_2021[0]}_flair.nii.gz"
    file.unlink()
    write_nifti(file, np.arange(192, dtype=np.int16).reshape(4, 8, 6))
    with pytest.raises(UsageError, match="--overwrite"):
        run(old)


def test_several_releases(old, write_case):
    write_case(old, "BraTS-GLI-00000-000", 0, (1, 2, 3))
    with pytest.raises(UsageError, match=r"several releases \(.*\), which share patients"):
        plan(old)


def test_other_tumours(tmp_path, write_case):
    write_case(tmp_path / "ped", "BraTS-PED-00002-000", 0, (1, 2, 3))
    with pytest.raises(UsageError, match="BraTS-PED-00002-000 is not of BraTS-GLI"):
        plan(tmp_path / "ped")


def test_an_image_twice(old, write_case):
    write_case(old / "copy", UP_TO_2021[0], 0, (1, 2, 4))
    with pytest.raises(UsageError, match="have one name; remove one"):
        plan(old)


def test_wrong_options_and_layout(old, tmp_path):
    with pytest.raises(UsageError, match="--task brain is not one of labels, regions"):
        plan(old, task="brain")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no case of BraTS"):
        plan(tmp_path / "empty")
    with pytest.raises(UsageError, match="does not exist"):
        plan(tmp_path / "nowhere")


@pytest.mark.real_data
def test_real_sample(raw, real_data, tmp_path):
    # There is one case; folds need two patients.
    for name in ("BraTS2021_00000", "BraTS2021_00001"):
        (tmp_path / "source" / name).mkdir(parents=True)
        for file in (real_data / "brats" / "BraTS2021_00000").iterdir():
            (tmp_path / "source" / name / file.name.replace("BraTS2021_00000", name)).symlink_to(file)
    manifest = run(tmp_path / "source").manifest
    assert manifest["cases"]["BraTS2021_00000"]["shape"] == [155, 240, 240]
    label = read(raw / NAME / "labelsTr" / "BraTS2021_00000.nii.gz")
    flair = read(raw / NAME / "imagesTr" / "BraTS2021_00000_0003.nii.gz")
    assert flair[label == 1].mean() > 1.3 * flair[(label == 0) & (flair > 0)].mean()  # edema is bright in FLAIR
