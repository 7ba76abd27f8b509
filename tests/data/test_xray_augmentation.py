import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nnunet_ext.data.xray_augmentation import (
    View,
    XrayAugmentation,
    affine_matrix,
    draw_view,
    normalise,
    show,
    whole_views,
)

sizes = st.integers(4, 40)
seeds = st.integers(0, 2**32)
augmentations = st.builds(XrayAugmentation, st.floats(0.05, 1), st.booleans(), st.floats(0, 180))


def random_image(seed: int, side: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)


@given(seeds, augmentations)
def test_crops_lie_in_the_image_and_keep_their_bounds(seed, augmentation):
    view = draw_view(np.random.default_rng(seed), augmentation)
    assert augmentation.min_scale - 1e-9 <= view.width * view.height <= 1 + 1e-9
    assert 3 / 4 - 1e-9 <= view.width / view.height <= 4 / 3 + 1e-9
    assert abs(view.x) + view.width <= 1 + 1e-9
    assert abs(view.y) + view.height <= 1 + 1e-9
    assert abs(math.degrees(view.angle)) <= augmentation.rotation + 1e-9
    assert augmentation.flip or not (view.mirror_x or view.mirror_y)


@given(seeds)
def test_neutral_settings_draw_the_whole_image(seed):
    assert draw_view(np.random.default_rng(seed), XrayAugmentation(min_scale=1, flip=False, rotation=0)) == View()


def test_draws_use_the_whole_range():
    views = [draw_view(np.random.default_rng(i), XrayAugmentation(0.25, True, 10)) for i in range(2000)]
    areas = np.array([view.width * view.height for view in views])
    assert (areas.min(), areas.mean(), areas.max()) == pytest.approx((0.25, 0.625, 1), abs=0.02)
    angles = np.degrees([view.angle for view in views])
    assert (angles.min(), angles.max()) == pytest.approx((-10, 10), abs=0.1)
    assert np.mean([view.mirror_x for view in views]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([view.mirror_x == view.mirror_y for view in views]) == pytest.approx(0.5, abs=0.05)
    assert min(view.x for view in views) < -0.3 < 0.3 < max(view.x for view in views)


@settings(deadline=None, max_examples=50)
@given(seeds, sizes, st.tuples(sizes, sizes), augmentations)
def test_patches_have_their_shape_and_stay_within_the_image_s_range(seed, side, patch_size, augmentation):
    image = random_image(seed, side)
    patch = show(image, draw_view(np.random.default_rng(seed), augmentation), patch_size)
    assert patch.shape == patch_size
    assert patch.dtype == torch.float32
    assert image.min() - 1e-2 <= patch.min() <= patch.max() <= image.max() + 1e-2


@given(seeds, sizes)
def test_neutral_view_is_the_identity(seed, side):
    image = random_image(seed, side)
    assert np.abs(show(image, View(), (side, side)).numpy() - image).max() < 1e-2


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (View(mirror_x=True), lambda image: image[:, ::-1]),
        (View(mirror_y=True), lambda image: image[::-1]),
        (View(angle=math.pi / 2), lambda image: np.rot90(image)),
        (View(angle=math.pi), lambda image: image[::-1, ::-1]),
        (View(x=-0.5, y=0.5, width=0.5, height=0.5), lambda image: np.kron(image[4:, :4], np.ones((2, 2)))),
    ],
)
def test_views_of_a_known_image(view, expected):
    image = random_image(0, 8)
    patch = show(image, view, (8, 8)).numpy()
    if view.width < 1:  # bilinear: compare where the enlarged pixels of a crop average out
        blocks = [array.reshape(4, 2, 4, 2).mean((1, 3))[1:-1, 1:-1] for array in (patch, expected(image))]
        assert np.corrcoef(*(block.ravel() for block in blocks))[0, 1] > 0.9
    else:
        assert np.abs(patch - expected(image)).max() < 1e-2


@settings(deadline=None, max_examples=50)
@given(seeds, st.tuples(sizes, sizes), augmentations)
def test_equals_torch_affine_grid(seed, patch_size, augmentation):
    """The grid made by two sums is the one of `torch.nn.functional.affine_grid`."""
    image = random_image(seed, 4)  # no patch is coarser than 4 x 4 pixels, so nothing is reduced first
    view = draw_view(np.random.default_rng(seed), augmentation)
    theta = torch.tensor([affine_matrix(view, patch_size)])
    grid = F.affine_grid(theta, [1, 1, *patch_size], align_corners=False)
    source = torch.from_numpy(image).float()[None, None]
    expected = F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)[0, 0]
    assert torch.allclose(show(image, view, patch_size), expected, atol=1e-2)


def test_rotation_keeps_angles_in_an_oblong_patch():
    """A step along the rotated axes has the same length in image pixels per patch pixel in x and y."""
    height, width = 20, 40
    (xx, xy, _), (yx, yy, _) = affine_matrix(View(angle=0.3, width=0.5, height=0.25), (height, width))
    # Patch pixel -> normalised patch: 2 / width; normalised image -> pixels of a 100 x 100 image: 100 / 2.
    columns = np.array([xx, yx]) * 2 / width * 50
    rows = np.array([xy, yy]) * 2 / height * 50
    assert np.linalg.norm(columns) == pytest.approx(np.linalg.norm(rows))
    assert columns @ rows == pytest.approx(0)


def test_coarse_patches_are_antialiased():
    """Noise of standard deviation 74 averages out: means of 8 x 8 pixels have 9, single pixels 37 to 74."""
    assert show(random_image(0, 64), View(), (8, 8)).std() < 14


def test_normalise():
    assert normalise(torch.tensor([0.0, 127.5, 255.0]), 0.5, 0.25).tolist() == pytest.approx([-2, 0, 2])


def test_whole_views():
    images = np.stack([random_image(seed, 16) for seed in range(3)])
    views = whole_views(images, (16, 16), 0.5, 0.25)
    assert views.shape == (3, 1, 16, 16)
    assert np.allclose(views[:, 0], (images / 255 - 0.5) / 0.25, atol=1e-3)
    assert whole_views(images[:0], (16, 16), 0.5, 0.25).shape == (0, 1, 16, 16)
