from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nnunet_ext.evaluation.overlays import (
    LUNG_WINDOW,
    MAX_PIXELS,
    SOFT_TISSUE_WINDOW,
    draw_case,
    draw_plane,
    grey_window,
    largest_slice,
    outline,
)
from nnunet_ext.utilities.errors import UsageError


def write(path, array, spacing=(4.0, 2.0, 1.0), direction=None):
    image = SimpleITK.GetImageFromArray(np.asarray(array))
    image.SetSpacing(spacing[::-1][: image.GetDimension()])
    if direction:
        image.SetDirection(direction)
    SimpleITK.WriteImage(image, str(path))
    return path


def pixels(plane):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(plane.picture.split(",")[1]))))


def edges_of(path):
    """Unit edges of an outline, as (command, column, row)."""
    found = set()
    for x, y, command, length in re.findall(r"M(\d+) (\d+)([hv])(\d+)", path):
        for i in range(int(length)):
            found.add((command, int(x) + i * (command == "h"), int(y) + i * (command == "v")))
    return found


def test_outline_of_one_pixel():
    labels = np.zeros((3, 4), np.uint8)
    labels[1, 2] = 1
    assert outline(labels) == "M2 1h1M2 2h1M2 1v1M3 1v1"
    assert outline(np.zeros((3, 4))) == ""


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_outline_separates_exactly_what_differs(seed):
    labels = np.random.default_rng(seed).integers(0, 3, (5, 6))
    padded = np.pad(labels, 1)
    expected = {("h", c, r) for r in range(6) for c in range(6) if padded[r, c + 1] != padded[r + 1, c + 1]}
    expected |= {("v", c, r) for r in range(5) for c in range(7) if padded[r + 1, c] != padded[r + 1, c + 1]}
    assert edges_of(outline(labels)) == expected


def test_largest_slice():
    mask = np.zeros((5, 6, 7))
    mask[1, 0, 0] = mask[3, 2, 2] = mask[3, 3, 2] = 1
    assert [largest_slice(mask, axis) for axis in range(3)] == [3, 0, 2]
    assert largest_slice(np.zeros((5, 6, 7)), 2) == 3


def test_windows():
    grey = np.full((4, 4, 4), -800.0)
    labels = np.zeros((4, 4, 4))
    labels[1:3, 1:3, 1:3] = 1
    assert grey_window(grey, labels, labels, is_ct=True) == LUNG_WINDOW
    grey[1:3, 1:3, 1:3] = 40
    assert grey_window(grey, labels, labels * 0, is_ct=True) == SOFT_TISSUE_WINDOW
    low, high = grey_window(grey, labels, labels, is_ct=False)
    assert (low, high) == (-800, 40)
    assert grey_window(np.zeros((2, 2)), labels, labels, is_ct=True)[1] > 0  # constant, and not in HU


def test_planes_are_oriented_by_the_header(tmp_path):
    # Stored with x from left to right and y from posterior to anterior, as many NIfTI files are.
    flipped = (-1, 0, 0, 0, -1, 0, 0, 0, 1)
    grey, labels = np.zeros((3, 4, 5), np.float32), np.zeros((3, 4, 5), np.uint8)
    grey[2, 3, 0] = 100  # most superior, most anterior, most left
    labels[2, 3, 0] = 1
    files = [
        write(tmp_path / f"{name}.nii.gz", array, direction=flipped)
        for name, array in (("image", grey), ("reference", labels), ("prediction", labels * 0))
    ]
    axial, coronal, sagittal = draw_case(*files, ignore_label=None, is_ct=False).planes
    assert pixels(axial).argmax() == 4 and "M4 0h1" in axial.reference  # first row, patient's left on the right
    assert pixels(coronal).argmax() == 4  # head up
    assert pixels(sagittal).argmax() == 0  # head up, anterior on the left
    assert [plane.caption for plane in (axial, coronal, sagittal)] == [
        "slice 3 of 3 from inferior",
        "slice 1 of 4 from anterior",
        "slice 5 of 5 from right",
    ]
    assert [(plane.width, plane.height) for plane in (axial, coronal, sagittal)] == [(5, 8), (5, 12), (8, 12)]
    assert axial.prediction == ""


def test_ignore_label_has_no_outline(tmp_path):
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1, 1, 1] = 2
    files = [write(tmp_path / f"{name}.nii.gz", labels) for name in ("image", "reference", "prediction")]
    assert all(plane.reference == "" != plane.prediction for plane in draw_case(*files, 2, is_ct=False).planes)


def test_colour_image_of_two_dimensions(tmp_path):
    colour = SimpleITK.GetImageFromArray(np.full((5, 7, 3), 9, np.uint8), isVector=True)
    SimpleITK.WriteImage(colour, str(tmp_path / "image.png"))
    files = [write(tmp_path / f"{name}.png", np.eye(5, 7, dtype=np.uint8)) for name in ("reference", "prediction")]
    overlay = draw_case(tmp_path / "image.png", *files, ignore_label=None, is_ct=False)
    assert [(plane.width, plane.height) for plane in overlay.planes] == [(7, 5)]


def test_large_slices_are_thinned_out():
    large = np.zeros((40, 2 * MAX_PIXELS + 1))
    plane = draw_plane("axial", "", large, large, large, (1.0, 0.5), (0, 1))
    assert max(pixels(plane).shape) <= MAX_PIXELS
    assert (plane.columns, plane.rows) == (2 * MAX_PIXELS + 1, 40)


def test_files_that_do_not_fit(tmp_path):
    image = write(tmp_path / "image.nii.gz", np.zeros((3, 4, 5), np.uint8))
    other = write(tmp_path / "other.nii.gz", np.zeros((3, 4, 6), np.uint8))
    (tmp_path / "broken.nii.gz").write_text("?")
    with pytest.raises(UsageError, match="differ in shape"):
        draw_case(image, other, image, None, False)
    with pytest.raises(UsageError, match="absent.nii.gz does not exist"):
        draw_case(image, tmp_path / "absent.nii.gz", image, None, False)
    with pytest.raises(UsageError, match="broken.nii.gz cannot be read"):
        draw_case(image, image, tmp_path / "broken.nii.gz", None, False)
