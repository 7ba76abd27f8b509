import numpy as np
import pytest
from PIL import Image

from nnunet_ext.dataset_conversion.run import convert
from nnunet_ext.dataset_conversion.sarcoma_ct import plan
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json

NAME = "Dataset301_Sarcoma"


@pytest.fixture
def sample(tmp_path, write_nifti, ct):
    """Three patients with tumour in slices 1 and 2 of 4, and an MR on a grid of its own."""
    source = tmp_path / "sarcoma"
    for number in (1, 5, 12):
        folder = source / f"STS_{number:03d}"
        values, label = ct(number)
        label[[0, 3]] = 0
        write_nifti(folder / "CT_image.nii.gz", values)
        write_nifti(folder / "CT_mask.nii.gz", label)
        write_nifti(folder / "MR_T1_image.nii.gz", values[:2])
        write_nifti(folder / "MR_T1_mask.nii.gz", label[:2])
    return source


def read(path):
    with Image.open(path) as picture:
        assert picture.mode == "L"
        return np.asarray(picture)


def test_volumes(raw, sample):
    manifest = convert(plan(sample), NAME, processes=1, quiet=True).manifest
    assert list(manifest["cases"]) == ["STS_001", "STS_005", "STS_012"]
    dataset = load_json(raw / NAME / "dataset.json")
    assert dataset["channel_names"] == {"0": "CT"} and dataset["labels"] == {"background": 0, "tumour": 1}
    assert manifest["options"] == {"slices": False, "holdout": []}


def test_slices_with_tumour_in_8_bits(raw, sample, ct):
    conversion = plan(sample, slices=True)
    assert conversion.name == "SarcomaSlices"
    manifest = convert(conversion, NAME, processes=1, quiet=True).manifest
    entry = manifest["cases"]["STS_005"]
    assert entry["slices"] == 2 and entry["intensity"] == "windowed -1250..250"
    assert sorted(f.name for f in (raw / NAME / "labelsTr").glob("STS_005*")) == [
        "STS_005_z001.png",
        "STS_005_z002.png",
    ]
    values, label = ct(5)
    image = read(raw / NAME / "imagesTr" / "STS_005_z002_0000.png")
    expected = np.rint((np.clip(values[2], -1250, 250) + 1250) / 1500 * 255)
    np.testing.assert_array_equal(image, expected.T)  # rows from right to left, columns from front to back
    np.testing.assert_array_equal(read(raw / NAME / "labelsTr" / "STS_005_z002.png"), label[2].T)
    dataset = load_json(raw / NAME / "dataset.json")
    assert dataset["numTraining"] == 6 and dataset["file_ending"] == ".png"


def test_axes_of_the_volume_do_not_matter(raw, sample, write_nifti, ct):
    convert(plan(sample, slices=True), NAME, processes=1, quiet=True)
    before = read(raw / NAME / "imagesTr" / "STS_005_z001_0000.png")
    header = {"origin": (1.0, 3.25, 18.0), "direction": (1, 0, 0, 0, -1, 0, 0, 0, -1)}
    for kind, values in zip(("image", "mask"), ct(5), strict=True):
        values[[0, 3]] *= kind == "image"
        write_nifti(sample / "STS_005" / f"CT_{kind}.nii.gz", values[::-1, ::-1], **header)
    convert(plan(sample, slices=True), NAME, processes=1, quiet=True, overwrite=True)
    np.testing.assert_array_equal(read(raw / NAME / "imagesTr" / "STS_005_z001_0000.png"), before)


def test_slices_of_a_patient_stay_together(raw, sample):
    convert(plan(sample, slices=True), NAME, processes=1, quiet=True, holdout=["STS_012"])
    folds = load_json(raw / NAME / "splits_final.json")
    assert [fold["val"] for fold in sorted(folds, key=lambda fold: fold["val"])] == [
        ["STS_001_z001", "STS_001_z002"],
        ["STS_005_z001", "STS_005_z002"],
    ]
    assert len(list((raw / NAME / "labelsTs").iterdir())) == 2


def test_other_window(raw, sample, ct):
    convert(plan(sample, slices=True, window=(-160.0, 240.0)), NAME, processes=1, quiet=True)
    image = read(raw / NAME / "imagesTr" / "STS_001_z001_0000.png")
    assert (image[(ct(1)[0][1] < -160).T] == 0).all() and image.max() == 255


def test_bad_cases(raw, sample, write_nifti, ct):
    (sample / "STS_001" / "CT_mask.nii.gz").unlink()
    write_nifti(sample / "STS_005" / "CT_mask.nii.gz", np.zeros((4, 8, 6), np.uint8))
    (sample / "STS_012" / "CT_image.nii.gz").rename(sample / "STS_012" / "ct.nii.gz")
    with pytest.raises(UsageError) as error:
        convert(plan(sample, slices=True), NAME, processes=1, quiet=True)
    message = str(error.value)
    assert "STS_001: no CT_mask.nii.gz beside it" in message
    assert "STS_005: the mask holds no tumour" in message
    assert "STS_012: no CT_image.nii.gz beside it" in message
    write_nifti(sample / "STS_005" / "CT_mask.nii.gz", ct(5)[1][1:])
    with pytest.raises(UsageError, match="STS_005: shape mismatch"):
        convert(plan(sample, slices=True), NAME, processes=1, quiet=True)
    assert not list(raw.iterdir())


def test_wrong_options_and_layout(sample, tmp_path):
    with pytest.raises(UsageError, match="give --slices as well"):
        plan(sample, window=(-160.0, 240.0))
    with pytest.raises(UsageError, match="--window 5 5"):
        plan(sample, slices=True, window=(5.0, 5.0))
    with pytest.raises(UsageError, match=r"holds no PATIENT/CT_image.nii.gz"):
        plan(tmp_path)


@pytest.mark.real_data
def test_real_sample(raw, real_data):
    manifest = convert(plan(real_data / "sarcoma", slices=True), NAME, processes=1, quiet=True).manifest
    assert len(manifest["cases"]) == 13 and not manifest["skipped"]
    assert sum(entry["slices"] for entry in manifest["cases"].values()) == 411
    image, label = (
        read(raw / NAME / f"{part}.png") for part in ("imagesTr/STS_001_z027_0000", "labelsTr/STS_001_z027")
    )
    assert 210 < image[label > 0].mean() < 225  # soft tissue
