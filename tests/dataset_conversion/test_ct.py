import gzip
from functools import partial

import numpy as np
import pytest
import SimpleITK

from nnunet_ext.dataset_conversion.base import BadCaseError, Case
from nnunet_ext.dataset_conversion.ct import process_ct

process = partial(process_ct, num_labels=2)


@pytest.fixture
def pair(tmp_path, write_nifti, ct):
    """A case whose image or label can be written anew with other values or headers."""

    def make(image=None, label=None, **label_header):
        values, mask = ct(0)
        return Case(
            "a",
            "a",
            "train",
            write_nifti(tmp_path / "a_ct.nii.gz", values if image is None else image),
            write_nifti(tmp_path / "a_seg.nii.gz", mask if label is None else label, **label_header),
        )

    return make


def test_image_is_kept_and_label_becomes_uint8(tmp_path, pair, ct):
    mask = ct(0)[1]
    case = pair(label=mask.astype(np.float64))
    entry = process(case, tmp_path / "out")
    image_file, label_file = (tmp_path / "out" / file for file in entry["files"])
    assert image_file.read_bytes() == case.image.read_bytes()
    label = SimpleITK.ReadImage(str(label_file))
    assert label.GetPixelID() == SimpleITK.sitkUInt8
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(label), mask)
    assert entry["shape"] == [4, 8, 6]
    assert entry["spacing"] == [5.0, 0.75, 0.75]
    assert entry["label_voxels"] == {"0": int((mask == 0).sum()), "1": int(mask.sum())}
    assert entry["files"] == ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"]
    assert "header_copied_from_image" not in entry


def test_uncompressed_image_is_compressed_with_its_data_type(tmp_path, write_nifti, ct):
    case = Case("a", "a", "test", write_nifti(tmp_path / "a_ct.nii", ct(0)[0]))
    entry = process(case, tmp_path / "out")
    assert entry["files"] == ["imagesTs/a_0000.nii.gz"]
    image = SimpleITK.ReadImage(str(tmp_path / "out" / entry["files"][0]))
    assert image.GetPixelID() == SimpleITK.sitkInt16
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), ct(0)[0])


def test_tiny_header_difference_is_copied_from_the_image_and_recorded(tmp_path, pair):
    entry = process(pair(origin=(1.01, -2.0, 3.0)), tmp_path / "out")
    assert entry["header_copied_from_image"] == ["origin"]
    image, label = (SimpleITK.ReadImage(str(tmp_path / "out" / file)) for file in entry["files"])
    assert label.GetOrigin() == pytest.approx(image.GetOrigin(), abs=1e-6)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"spacing": (0.75, 0.75, 2.5)}, r"spacing mismatch: image \(0.75, 0.75, 5\), label \(0.75, 0.75, 2.5\)"),
        ({"origin": (5.0, -2.0, 3.0)}, "origin mismatch"),
        ({"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}, "direction mismatch"),
    ],
)
def test_geometry_mismatch(tmp_path, pair, header, message):
    with pytest.raises(BadCaseError, match=message):
        process(pair(**header), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shape_mismatch(tmp_path, pair):
    with pytest.raises(BadCaseError, match=r"shape mismatch: image \(6, 8, 4\), label \(6, 8, 5\)"):
        process(pair(label=np.zeros((5, 8, 6), np.uint8)), tmp_path / "out")


@pytest.mark.parametrize(("value", "shown"), [(2, "2"), (255, "255"), (-1, "-1"), (0.5, "0.5")])
def test_label_out_of_range(tmp_path, pair, ct, value, shown):
    mask = ct(0)[1].astype(np.float32)
    mask[0, 0, 0] = value
    with pytest.raises(BadCaseError, match=f"label out of range: {shown}; expected 0 to 1"):
        process(pair(label=mask), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_image_with_nan_or_infinite_voxels(tmp_path, pair, ct, value):
    values = ct(0)[0].astype(np.float32)
    values[1, 2, 3] = value
    with pytest.raises(BadCaseError, match="1 voxels that are NaN or infinite"):
        process(pair(image=values), tmp_path / "out")


def test_label_with_nan(tmp_path, pair, ct):
    mask = ct(0)[1].astype(np.float32)
    mask[0, 0, :2] = np.nan
    with pytest.raises(BadCaseError, match=r"label a_seg.nii.gz holds 2 voxels that are NaN"):
        process(pair(label=mask), tmp_path / "out")


def test_empty_image(tmp_path, pair):
    with pytest.raises(BadCaseError, match="empty: every voxel is -1024"):
        process(pair(image=np.full((4, 8, 6), -1024, np.int16)), tmp_path / "out")


def test_image_of_four_dimensions(tmp_path):
    image = SimpleITK.Image([4, 4, 4, 2], SimpleITK.sitkInt16)
    SimpleITK.WriteImage(image, str(tmp_path / "a.nii.gz"))
    with pytest.raises(BadCaseError, match="not 3 dimensions"):
        process(Case("a", "a", "test", tmp_path / "a.nii.gz"), tmp_path / "out")


def test_channels_are_split_as_nnunet_does(tmp_path, pair, ct):
    from nnunetv2.dataset_conversion.convert_MSD_dataset import split_4d_nifti

    case = pair(direction=(0, 1, 0, -1, 0, 0, 0, 0, 1))
    frames = [ct(seed)[0] for seed in (0, 1)]
    image = SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(frame) for frame in frames])
    image.SetSpacing((0.75, 0.75, 5.0, 1.0))
    image.SetOrigin((1.0, -2.0, 3.0, 0.0))
    image.SetDirection((0, 1, 0, 0, -1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, str(case.image))
    entry = process(case, tmp_path / "out", num_channels=2)
    assert entry["files"] == ["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz"]
    (tmp_path / "theirs").mkdir()
    split_4d_nifti(str(case.image), str(tmp_path / "theirs"))
    for index, frame in enumerate(frames):
        ours = SimpleITK.ReadImage(str(tmp_path / "out" / entry["files"][index]))
        theirs = SimpleITK.ReadImage(str(tmp_path / "theirs" / f"a_ct_{index:04d}.nii.gz"))
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(ours), frame)
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(theirs), frame)
        for field in ("Spacing", "Origin", "Direction"):
            assert getattr(ours, f"Get{field}")() == pytest.approx(getattr(theirs, f"Get{field}")())
    with pytest.raises(BadCaseError, match="has 2 channels, not 4"):
        process(case, tmp_path / "out", num_channels=4)
    with pytest.raises(BadCaseError, match="not 4 dimensions"):
        process(pair(), tmp_path / "out", num_channels=2)


def test_empty_channel(tmp_path, ct):
    frames = [SimpleITK.GetImageFromArray(frame) for frame in (ct(0)[0], np.zeros((4, 8, 6), np.int16))]
    SimpleITK.WriteImage(SimpleITK.JoinSeries(frames), str(tmp_path / "a.nii.gz"))
    with pytest.raises(BadCaseError, match="image is empty"):
        process(Case("a", "a", "test", tmp_path / "a.nii.gz"), tmp_path / "out", num_channels=2)


def test_label_with_flipped_axes_is_put_in_the_order_of_the_image(tmp_path, pair, ct):
    # The last voxel along y and z is the first of the flipped label: y -2 + 7 * 0.75, z 3 + 3 * 5.
    mask = ct(0)[1]
    header = {"origin": (1.0, 3.25, 18.0), "direction": (1, 0, 0, 0, -1, 0, 0, 0, -1)}
    case = pair(label=mask[::-1, ::-1], **header)
    with pytest.raises(BadCaseError, match="mismatch"):
        process(case, tmp_path / "strict")
    entry = process(case, tmp_path / "out", label_header="reorient")
    assert entry["label_reoriented"] == "LAI to LPS" and "header_copied_from_image" not in entry
    image, label = (SimpleITK.ReadImage(str(tmp_path / "out" / file)) for file in entry["files"])
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(label), mask)
    assert label.GetDirection() == image.GetDirection()
    with pytest.raises(BadCaseError, match="origin mismatch"):
        process(pair(label=mask, origin=(1.0, 3.25, 18.0)), tmp_path / "out", label_header="reorient")


def test_label_header_can_be_ignored(tmp_path, pair, ct):
    mask = ct(0)[1]
    case = pair(label=mask, spacing=(1.0, 1.0, 1.0), origin=(1.0, 1.0, 1.0), direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))
    entry = process(case, tmp_path / "out", label_header="ignore")
    assert entry["header_copied_from_image"] == ["spacing", "origin", "direction"]
    image, label = (SimpleITK.ReadImage(str(tmp_path / "out" / file)) for file in entry["files"])
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(label), mask)
    assert label.GetSpacing() == image.GetSpacing() and label.GetDirection() == image.GetDirection()
    with pytest.raises(BadCaseError, match="shape mismatch"):
        process(pair(label=mask[1:]), tmp_path / "out", label_header="ignore")


def test_unreadable_image(tmp_path, pair):
    case = pair()
    case.image.write_bytes(gzip.compress(b"no image"))
    with pytest.raises(BadCaseError, match=r"image a_ct.nii.gz is unreadable"):
        process(case, tmp_path / "out")


@pytest.mark.parametrize("which", ["image", "label"])
def test_truncated_file(tmp_path, pair, which):
    # SimpleITK alone reads such a file without a word.
    case = pair()
    file = getattr(case, which)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(BadCaseError, match=f"{which} .* is unreadable"):
        process(case, tmp_path / "out")
