import numpy as np
import pytest

from nnunet_ext.dataset_conversion.lits import plan
from nnunet_ext.dataset_conversion.run import convert
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json

NAME = "Dataset029_LiTS"


@pytest.fixture
def batches(tmp_path, write_nifti, ct):
    """Two batches of training volumes and a test volume, uncompressed as published."""
    source = tmp_path / "LiTS"
    for number in (0, 1, 28, 100):
        values, label = ct(number)
        label[0, 0, :2] = 2
        batch = source / f"Training Batch {1 if number < 28 else 2}"
        write_nifti(batch / f"volume-{number}.nii", values)
        write_nifti(batch / f"segmentation-{number}.nii", label)
    write_nifti(source / "Test" / "test-volume-0.nii", ct(7)[0])
    return source


def test_pairs_across_batches(raw, batches):
    manifest = convert(plan(batches), NAME, processes=1, quiet=True).manifest
    assert {name: entry["split"] for name, entry in manifest["cases"].items()} == {
        "test-volume-000": "test",
        **dict.fromkeys(("volume-000", "volume-001", "volume-028", "volume-100"), "train"),
    }
    assert manifest["cases"]["volume-028"]["label_voxels"]["2"] == 2
    assert load_json(raw / NAME / "dataset.json")["labels"] == {"background": 0, "liver": 1, "tumour": 2}
    assert (raw / NAME / "imagesTs" / "test-volume-000_0000.nii.gz").is_file()


def test_volume_and_segmentation_without_the_other(batches):
    (batches / "Training Batch 1" / "volume-0.nii").unlink()
    (batches / "Training Batch 1" / "segmentation-1.nii").unlink()
    assert {case.name: case.problem for case in plan(batches).cases if case.problem} == {
        "volume-000": "a segmentation, but no volume of this number",
        "volume-001": "no segmentation of this number",
    }


def test_a_number_twice(batches):
    (batches / "volume-28.nii").write_bytes(b"")
    with pytest.raises(UsageError, match="have one number; remove one"):
        plan(batches)


def test_masks_with_another_header(raw, batches, write_nifti, ct):
    label = batches / "Training Batch 2" / "segmentation-28.nii"
    write_nifti(label, ct(28)[1], spacing=(1, 1, 1), origin=(1, 1, 1))
    with pytest.raises(UsageError, match=r"volume-028: spacing mismatch"):
        convert(plan(batches), NAME, processes=1, quiet=True)
    manifest = convert(plan(batches, ignore_label_headers=True), NAME, processes=1, quiet=True).manifest
    assert manifest["cases"]["volume-028"]["header_copied_from_image"] == ["spacing", "origin"]
    assert manifest["options"]["ignore_label_headers"] is True
    assert np.sum(list(manifest["cases"]["volume-028"]["label_voxels"].values())) == ct(28)[1].size
    assert (raw / NAME).is_dir()


def test_wrong_layout(tmp_path):
    with pytest.raises(UsageError, match=r"holds no volume-N.nii"):
        plan(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        plan(tmp_path / "nowhere")
