import numpy as np
import pytest
from PIL import Image

from nnunet_ext.dataset_conversion.base import BadCaseError
from nnunet_ext.dataset_conversion.slices import grey_values, to_8_bits, write_slice


def test_window_to_8_bits():
    # (HU + 1250) / 1500 * 255: -1000 -> 42.5 (to even), -650 -> 102, 40 -> 219.3
    grey = to_8_bits(np.array([[-3000, -1250, -1000], [-650, 40, 251]], np.int16), (-1250.0, 250.0))
    assert grey.dtype == np.uint8 and grey.tolist() == [[0, 0, 42], [102, 219, 255]]


def test_slice_is_written_where_nnunet_looks_for_it(tmp_path):
    image, label = np.arange(6, dtype=np.uint8).reshape(2, 3), np.eye(2, 3, dtype=np.uint8)
    files = write_slice(tmp_path, "Ts", "a", image, label)
    assert files == ["imagesTs/a_0000.png", "labelsTs/a.png"]
    for file, values in zip(files, (image, label), strict=True):
        with Image.open(tmp_path / file) as picture:
            assert picture.mode == "L"
            np.testing.assert_array_equal(np.asarray(picture), values)


def test_colours_become_grey_and_depth_is_checked():
    values = np.array([[0, 90, 255]], np.uint8)
    np.testing.assert_array_equal(grey_values(Image.fromarray(np.stack([values] * 3, -1))), values)
    with pytest.raises(BadCaseError, match="mode I;16, not 8 bits"):
        grey_values(Image.fromarray(values.astype(np.uint16)))
    with pytest.raises(BadCaseError, match="image is empty: every pixel is 7"):
        grey_values(Image.new("L", (2, 2), 7))
