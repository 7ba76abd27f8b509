import json
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from PIL import Image

from nnunet_ext.inference.image_grid import as_seen, on_grid_of, undo_cropping, undo_resampling

VOLUME = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
ENDINGS = [
    (SimpleITKIO, ".nii.gz"),
    (SimpleITKIO, ".mha"),
    (SimpleITKIOWithReorient, ".nii.gz"),
    (NibabelIO, ".nii.gz"),
    (NibabelIOWithReorient, ".nii.gz"),
]


def read_back(reader, file):
    """What the reader finds in the file, put back on the file's grid."""
    values, properties = reader().read_images([str(file)])
    return on_grid_of(str(file), values[0].astype(np.float32), properties)


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "PIR", "SLA"])
@pytest.mark.parametrize(("reader", "ending"), ENDINGS)
def test_every_reader_of_volumes(reader, ending, orientation, tmp_path):
    image = sitk.GetImageFromArray(VOLUME)
    image.SetSpacing((0.5, 1.5, 2))
    image.SetOrigin((10, -20, 30))
    image = sitk.DICOMOrient(image, orientation)
    sitk.WriteImage(image, str(tmp_path / f"a_0000{ending}"))
    back = read_back(reader, tmp_path / f"a_0000{ending}")
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(back, name)(), getattr(image, name)(), atol=1e-5)
    seen, spacing = as_seen(back)
    assert np.array_equal(seen, VOLUME) and np.allclose(spacing, (2, 1.5, 0.5))


def test_a_2d_file_of_simpleitk(tmp_path):
    image = sitk.GetImageFromArray(VOLUME[0])
    image.SetSpacing((0.5, 1.5))
    sitk.WriteImage(image, str(tmp_path / "a_0000.mha"))
    back = read_back(SimpleITKIO, tmp_path / "a_0000.mha")
    assert np.array_equal(sitk.GetArrayFromImage(back), VOLUME[0]) and back.GetSpacing() == (0.5, 1.5)
    assert as_seen(back)[1] == (1.5, 0.5)


def test_pictures_become_2d_images(tmp_path):
    pixels = np.arange(30, dtype=np.uint8).reshape(5, 6)
    Image.fromarray(np.stack([pixels] * 3, -1)).save(tmp_path / "a_0000.png")
    back = read_back(NaturalImage2DIO, tmp_path / "a_0000.png")
    assert np.array_equal(sitk.GetArrayFromImage(back), pixels) and back.GetSpacing() == (1, 1)


def test_tiff_takes_the_spacing_beside_it(tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "a_0000.tif", VOLUME, photometric="minisblack")
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [3, 2, 0.5]}))
    back = read_back(Tiff3DIO, tmp_path / "a_0000.tif")
    assert np.array_equal(sitk.GetArrayFromImage(back), VOLUME) and back.GetSpacing() == (0.5, 2, 3)


@pytest.mark.parametrize(
    ("planned", "expected"), [([2.0, 3.0, 4.0], [2.0, 3.0, 4.0]), ([3.0, 4.0], [1.5, 3.0, 4.0])], ids=["3d", "2d"]
)
def test_what_preprocessing_did_is_undone_in_reverse(planned, expected):
    """Spacing in the order of the plans; a 2D plan leaves the distance of slices as it is."""
    asked = []

    def resample(values, shape, current, wanted):
        asked.append((values.dtype, shape, current, wanted))
        return np.ones((len(values), *shape), np.float32) * values[:, :1, :1, :1]

    plans = SimpleNamespace(transpose_forward=[2, 0, 1], transpose_backward=[1, 2, 0])
    properties = {
        "spacing": [5.0, 0.5, 1.5],
        "shape_after_cropping_and_before_resampling": (2, 3, 4),
        "shape_before_cropping": (3, 5, 4),
        "bbox_used_for_cropping": [[1, 3], [0, 3], [0, 4]],
    }
    configuration = SimpleNamespace(spacing=planned, resampling_fn_probabilities=resample)
    gates = np.full((2, 1, 1, 1), 0.25, np.float16)
    resampled = undo_resampling(gates, properties, plans, configuration)
    assert asked == [(np.float32, (2, 3, 4), expected, [1.5, 5.0, 0.5])] and resampled.dtype == np.float32
    image = undo_cropping(resampled, properties, plans)
    assert image.shape == (2, 5, 4, 3)  # file axes 0, 1, 2 are the plans' 1, 2, 0
    assert (image[:, :3, :, 1:] == 0.25).all() and image.sum() == 0.25 * 2 * 24
