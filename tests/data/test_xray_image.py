from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunet_ext.data.xray_image import read_xray
from nnunet_ext.utilities.errors import UsageError

RAMP = np.tile(np.arange(64, dtype=np.uint8) * 3 + 10, (64, 1))


def save(array: np.ndarray, path: Path) -> Path:
    Image.fromarray(array).save(path)
    return path


def test_8_bit_grey_values_stay_as_they_are(tmp_path):
    result = read_xray(save(RAMP, tmp_path / "a.png"), 64)
    assert result.dtype == np.uint8
    assert np.array_equal(result, RAMP)


def test_colour_becomes_grey(tmp_path):
    assert np.array_equal(read_xray(save(np.stack([RAMP] * 3, -1), tmp_path / "a.png"), 64), RAMP)


def test_jpeg(tmp_path):
    result = read_xray(save(np.kron(RAMP, np.ones((8, 8), np.uint8)), tmp_path / "a.jpg"), 64)
    assert np.abs(result.astype(int) - RAMP).max() <= 4


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deeper_values_are_stretched_to_8_bits(tmp_path, dtype):
    ending = "tif" if dtype == np.float32 else "png" if dtype == np.uint16 else "tif"
    twelve_bits = (RAMP.astype(dtype) - 10) * 15 + 500
    result = read_xray(save(twelve_bits, tmp_path / f"a.{ending}"), 64)
    assert np.abs(result - (RAMP - 10.0) * 255 / 189).max() <= 0.5


def test_constant_16_bit_image_is_black(tmp_path):
    assert read_xray(save(np.full((9, 9), 700, np.uint16), tmp_path / "a.png"), 16).max() == 0


def test_oblong_image_is_squeezed_whole_and_antialiased(tmp_path):
    stripes = np.zeros((128, 64), np.uint8)
    stripes[::2] = 200  # finer than the result can show: the mean remains
    stripes[:, 32:] = 255
    result = read_xray(save(stripes, tmp_path / "a.png"), 16)
    assert result.shape == (16, 16)
    assert np.abs(result[1:-1, :7].astype(int) - 100).max() <= 6
    assert (result[:, 9:] == 255).all()


def broken_files(folder: Path) -> list[Path]:
    whole = save(RAMP, folder / "whole.png").read_bytes()
    contents = {"empty": b"", "text": b"not an image", "truncated": whole[: len(whole) // 2], "header": whole[:20]}
    for name, content in contents.items():
        (folder / f"{name}.png").write_bytes(content)
    save(np.full((4, 4), np.nan, np.float32), folder / "nan.tif")
    return [*(folder / f"{name}.png" for name in contents), folder / "nan.tif", folder / "absent.png"]


def test_unreadable_files_are_named(tmp_path):
    for path in broken_files(tmp_path):
        with pytest.raises(UsageError, match=path.name):
            read_xray(path, 16)
