"""Images whose value is a linear function of the point: resampled right, they keep it on any grid."""

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_ext.dataset_conversion.resampling import dice, field_of_view, mask_onto_grid, onto_grid

IDENTITY = SimpleITK.Transform()
GRADIENT = np.array([3.0, -2.0, 0.5])  # per mm


def grid(size, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), angle=0.0):
    """An empty image whose axes are turned by `angle` about z."""
    image = SimpleITK.Image(size, SimpleITK.sitkFloat32)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    cosine, sine = np.cos(angle), np.sin(angle)
    image.SetDirection((cosine, -sine, 0, sine, cosine, 0, 0, 0, 1))
    return image


def points(image):
    """(z, y, x, 3): the point in mm of every voxel, written out from the header."""
    index = np.stack(np.meshgrid(*map(np.arange, image.GetSize()), indexing="ij"), -1)
    direction = np.reshape(image.GetDirection(), (3, 3))
    return (index * image.GetSpacing() @ direction.T + image.GetOrigin()).transpose(2, 1, 0, 3)


def ramp(like):
    image = SimpleITK.GetImageFromArray((points(like) @ GRADIENT).astype(np.float32))
    image.CopyInformation(like)
    return image


@settings(deadline=None, max_examples=30)
@given(
    spacing=st.tuples(*[st.floats(0.5, 3)] * 3),
    shift=st.tuples(*[st.floats(-2, 2)] * 3),
    angle=st.floats(-0.5, 0.5),
)
def test_a_point_keeps_its_value_on_any_grid(spacing, shift, angle):
    source = ramp(grid((40, 40, 40), origin=(-20, -20, -20)))
    target = grid((5, 4, 3), spacing, shift, angle)  # inside of the source, far from its border
    values = SimpleITK.GetArrayFromImage(onto_grid(source, target, IDENTITY, -1.0))
    np.testing.assert_allclose(values, points(target) @ GRADIENT, atol=2e-3)


def test_transform_takes_points_of_the_grid_to_points_of_the_image():
    source = ramp(grid((20, 20, 20)))
    target = grid((3, 3, 3), origin=(5, 5, 5))
    transform = SimpleITK.TranslationTransform(3, (1.0, 2.0, 0.0))
    values = SimpleITK.GetArrayFromImage(onto_grid(source, target, transform, 0.0))
    np.testing.assert_allclose(values, (points(target) + np.array([1, 2, 0])) @ GRADIENT, atol=1e-4)


def test_the_same_grid_changes_nothing_and_beyond_it_is_the_value_given():
    generator = np.random.default_rng(0)
    image = SimpleITK.GetImageFromArray(generator.integers(-1000, 1000, (4, 5, 6)).astype(np.int16))
    larger = grid((8, 5, 4), origin=(-2.0, 0.0, 0.0))
    values = SimpleITK.GetArrayFromImage(onto_grid(image, larger, IDENTITY, -1024.0))
    np.testing.assert_array_equal(values[:, :, 2:], SimpleITK.GetArrayFromImage(image))
    assert (values[:, :, :2] == -1024).all()


def test_a_coarser_grid_averages():
    # A checkerboard of 0 and 100 is 50 everywhere to voxels of four times the size, not a pattern of its own.
    board = (np.indices((24, 24, 24)).sum(0) % 2 * 100).astype(np.int16)
    coarse = grid((5, 5, 5), (4.0, 4.0, 4.0), (4.0, 4.0, 4.0))
    image = SimpleITK.Cast(SimpleITK.GetImageFromArray(board), SimpleITK.sitkInt16)
    values = SimpleITK.GetArrayFromImage(onto_grid(image, coarse, IDENTITY, 0.0))
    np.testing.assert_allclose(values, 50, atol=2)


def test_masks_stay_masks():
    mask = SimpleITK.GetImageFromArray(np.eye(4, dtype=np.uint8)[None].repeat(2, 0))
    fine = grid((8, 8, 2), (0.5, 0.5, 1.0), (-0.25, -0.25, 0.0))  # each voxel is four
    expected = np.kron(np.eye(4, dtype=bool), np.ones((2, 2), bool))
    np.testing.assert_array_equal(mask_onto_grid(mask, fine, IDENTITY), expected[None].repeat(2, 0))


def test_field_of_view():
    image = grid((4, 4, 4))
    target = grid((3, 1, 1), (2.0, 1.0, 1.0))  # centres at x = 0, 2, 4; the image ends at 3.5
    assert field_of_view(image, target, IDENTITY).ravel().tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [([1, 1, 0], [1, 0, 0], 2 / 3), ([1, 0], [0, 1], 0.0), ([0, 0], [0, 0], 1.0), ([1, 0], [0, 0], 0.0)],
)
def test_dice(first, second, expected):
    assert dice(np.array(first), np.array(second)) == pytest.approx(expected)
