from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from nnunet_ext.evaluation.report.overlays import (
    LUNG_WINDOW,
    MARGIN,
    MAX_PIXELS,
    MAX_SLICES,
    SOFT_TISSUE_WINDOW,
    choose_slices,
    draw_case,
    encode,
    grey_window,
    largest_slice,
)
from nnunet_ext.utilities.errors import UsageError


def write(path, array, spacing=(4.0, 2.0, 1.0), direction=None):
    image = SimpleITK.GetImageFromArray(np.asarray(array))
    image.SetSpacing(spacing[::-1][: image.GetDimension()])
    if direction:
        image.SetDirection(direction)
    SimpleITK.WriteImage(image, str(path))
    return path


def pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def first(plane):
    """The slice that is shown first."""
    return plane.slices[plane.start]


def test_largest_slice():
    mask = np.zeros((5, 6, 7))
    mask[1, 0, 0] = mask[3, 2, 2] = mask[3, 3, 2] = 1
    assert [largest_slice(mask, axis) for axis in range(3)] == [3, 0, 2]
    assert largest_slice(np.zeros((5, 6, 7)), 2) == 3


def test_slices_cover_all_outlines_and_start_at_the_largest_of_the_reference():
    reference, prediction = np.zeros((100, 4, 4)), np.zeros((100, 4, 4))
    reference[40:44, 1, 1] = reference[43, 2, 2] = 1
    prediction[50, 1, 1] = 1
    indices, start = choose_slices([reference, prediction], 0)
    assert indices == list(range(40 - MARGIN, 51 + MARGIN)) and indices[start] == 43
    prediction[90, 1, 1] = 1
    indices, start = choose_slices([reference, prediction], 0)
    assert len(indices) == MAX_SLICES and indices[start] == 43
    assert (indices[0], indices[-1]) == (40 - MARGIN, 90 + MARGIN)
    assert indices == sorted(set(indices)) and max(np.diff(indices)) <= 4


def test_slices_of_empty_masks():
    empty, prediction = np.zeros((100, 4, 4)), np.zeros((100, 4, 4))
    indices, start = choose_slices([empty, empty], 0)
    assert (indices[0], indices[-1], indices[start], len(indices)) == (0, 99, 50, MAX_SLICES)
    prediction[99, 1, 1] = 1
    indices, start = choose_slices([empty, prediction], 0)
    assert indices == [97, 98, 99] and indices[start] == 99


def test_windows():
    grey, foreground = np.full((9, 9, 9), -800.0), np.zeros((9, 9, 9), bool)
    foreground[4, 4, 4] = 1
    assert grey_window(grey, foreground, is_ct=True) == LUNG_WINDOW
    grey[4, 4, 4] = 40  # a dense lesion in the lung
    assert grey_window(grey, foreground, is_ct=True) == LUNG_WINDOW
    grey[np.abs(np.indices(grey.shape) - 4).sum(0) <= 4] = 40  # tissue around it, then air
    assert grey_window(grey, foreground, is_ct=True) == SOFT_TISSUE_WINDOW
    low, high = grey_window(grey, foreground, is_ct=False)
    assert (low, high) == (-800, 40)
    assert grey_window(np.zeros((2, 2)), np.ones((2, 2), bool), is_ct=True)[1] > 0  # constant, and not in HU
    assert grey_window(np.full((2, 2), -900.0), np.zeros((2, 2), bool), is_ct=True) == LUNG_WINDOW  # nothing outlined


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
    axial, coronal, sagittal = draw_case(*files[:2], files[2:], ignore_label=None, is_ct=False).planes
    assert pixels(first(axial).picture).argmax() == 4 and first(axial).outlines[0].startswith(
        "M4 0h1"
    )  # first row, patient's left on the right
    assert pixels(first(coronal).picture).argmax() == 4  # head up
    assert pixels(first(sagittal).picture).argmax() == 0  # head up, anterior on the left
    assert [first(plane).caption for plane in (axial, coronal, sagittal)] == [
        "slice 3 of 3 from inferior, at 8 mm",
        "slice 1 of 4 from anterior, at 0 mm",
        "slice 5 of 5 from right, at 4 mm",
    ]
    assert [len(plane.slices) for plane in (axial, coronal, sagittal)] == [3, 3, 3]
    assert [(plane.width, plane.height) for plane in (axial, coronal, sagittal)] == [(5, 8), (5, 12), (8, 12)]
    assert first(axial).outlines[1] == ""


def test_ignore_label_has_no_outline(tmp_path):
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1, 1, 1] = 2
    files = [write(tmp_path / f"{name}.nii.gz", labels) for name in ("image", "reference", "prediction")]
    for plane in draw_case(*files[:2], files[2:], 2, is_ct=False).planes:
        reference, prediction = first(plane).outlines
        assert reference == "" != prediction


def test_several_predictions_and_one_that_is_missing(tmp_path):
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1, 1, 1] = 1
    files = [write(tmp_path / f"{name}.nii.gz", labels) for name in ("image", "reference", "prediction")]
    axial = draw_case(*files[:2], [files[2], None], None, is_ct=False).planes[0]
    assert first(axial).outlines == ["M1 1h1v1h-1v-1", "M1 1h1v1h-1v-1", ""]


def test_colour_image_of_two_dimensions_keeps_its_colours(tmp_path):
    colour = np.zeros((5, 7, 3), np.uint8)
    colour[..., 0], colour[..., 2] = 200, 30
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(colour, isVector=True), str(tmp_path / "image.png"))
    files = [write(tmp_path / f"{name}.png", np.eye(5, 7, dtype=np.uint8)) for name in ("reference", "prediction")]
    overlay = draw_case(tmp_path / "image.png", files[0], files[1:], ignore_label=None, is_ct=False)
    assert [(plane.width, plane.height, len(plane.slices)) for plane in overlay.planes] == [(7, 5, 1)]
    assert overlay.window is None
    np.testing.assert_array_equal(pixels(first(overlay.planes[0]).picture), colour)


def test_large_slices_are_averaged_down():
    large = np.zeros((40, 4 * MAX_PIXELS))
    large[:, ::2] = 1
    uri = encode(large, (0, 1))
    assert pixels(uri).shape == (10, MAX_PIXELS)
    assert abs(pixels(uri).mean() - 127.5) < 3 and uri.startswith("data:image/png")
    assert encode(np.zeros((MAX_PIXELS, MAX_PIXELS)), (0, 1)).startswith("data:image/jpeg")


def test_files_that_do_not_fit(tmp_path):
    image = write(tmp_path / "image.nii.gz", np.zeros((3, 4, 5), np.uint8))
    other = write(tmp_path / "other.nii.gz", np.zeros((3, 4, 6), np.uint8))
    (tmp_path / "broken.nii.gz").write_text("?")
    with pytest.raises(UsageError, match="differ in shape"):
        draw_case(image, other, [image], None, False)
    with pytest.raises(UsageError, match="absent.nii.gz does not exist"):
        draw_case(image, tmp_path / "absent.nii.gz", [image], None, False)
    with pytest.raises(UsageError, match="broken.nii.gz cannot be read"):
        draw_case(image, image, [tmp_path / "broken.nii.gz"], None, False)
