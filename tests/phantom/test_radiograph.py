import numpy as np
import pytest

from nnunet_ext.phantom.radiograph import SCATTER, WATER_ATTENUATION, radiograph
from nnunet_ext.phantom.sources import FIELD_OF_VIEW, XRAY_FINDINGS
from nnunet_ext.phantom.thorax import thorax

SHAPE = (64, 24, 64)
SPACING = tuple(length / n for length, n in zip(FIELD_OF_VIEW, SHAPE, strict=True))


def xray(seed, name):
    return radiograph(thorax(seed, SHAPE, SPACING, XRAY_FINDINGS[name]).ct, SPACING, SHAPE[::2]).astype(float)


def lungs(seed):
    return thorax(seed, SHAPE, SPACING, ()).lungs


def test_grey_follows_beer_and_lambert():
    """Steps of water 0, 40, 80, 160 mm thick; far from the edges the grey is linear in -log(I / I0)."""
    ct = np.full((64, 40, 256), -1000, np.int16)
    thickness = (0, 10, 20, 40)  # voxels of 4 mm
    for step, voxels in enumerate(thickness):
        ct[:, :voxels, step * 64 : (step + 1) * 64] = 0
    image = radiograph(ct, (1.0, 4.0, 1.0), (64, 256)).astype(float)
    measured = np.array([image[:, step * 64 + 28 : step * 64 + 36].mean() for step in range(4)])
    expected = -np.log(np.exp(-WATER_ATTENUATION * 4 * np.array(thickness)) + SCATTER)
    measured, expected = ((v - v[0]) / (v[-1] - v[0]) for v in (measured, expected))
    np.testing.assert_allclose(measured, expected, atol=0.02)


def test_the_head_is_at_the_top_and_the_left_on_the_right():
    ct = np.full((32, 16, 32), -1000, np.int16)
    ct[20:30, :, 20:30] = 0  # towards the head, on the patient's left
    image = radiograph(ct, (5.0, 5.0, 5.0), (64, 64))
    row, column = (axis.mean() for axis in np.nonzero(image > 128))
    assert row < 24
    assert column > 40


def test_output_is_uint8_of_the_size_asked_for_and_uses_the_whole_scale():
    image = radiograph(thorax(0, SHAPE, SPACING, ()).ct, SPACING, (100, 120))
    assert image.dtype == np.uint8
    assert image.shape == (100, 120)
    assert image.min() == 0
    assert image.max() == 255


def test_an_empty_field_is_black():
    assert not radiograph(np.full((16, 16, 16), -1000, np.int16), (1.0, 1.0, 1.0), (32, 32)).any()


def test_lungs_are_darker_than_heart_and_lighter_than_air():
    image = xray(0, "healthy")
    projected = lungs(0).sum(axis=1)[::-1] > 8
    assert image[0, 0] < image[projected].mean() < 0.75 * image[44:50, 31:34].mean()


@pytest.mark.parametrize("name", ["covid", "pneumonia"])
def test_lesions_are_seen_where_they_are(name):
    for seed in range(6):
        sick = thorax(seed, SHAPE, SPACING, XRAY_FINDINGS[name])
        (mask,) = sick.lesions.values()
        depth = mask.sum(axis=1)[::-1]
        difference = xray(seed, name) - xray(seed, "healthy")
        seen, unseen = depth >= np.quantile(depth[depth > 0], 0.75), (depth == 0) & (lungs(seed).sum(1)[::-1] > 4)
        assert difference[seen].mean() > 15
        assert difference[seen].mean() > difference[unseen].mean() + 15


def test_classes_differ_in_opacity_and_in_its_symmetry():
    """Lung opacity relative to the patient's own mediastinum, per side: what a classifier can find."""

    def opacity(seed, name):
        image, projected = xray(seed, name), lungs(seed).sum(axis=1)[::-1] > 4
        right, left = (image[:, :32][projected[:, :32]].mean(), image[:, 32:][projected[:, 32:]].mean())
        return (right + left) / 2, abs(right - left)

    means = {name: np.array([opacity(seed, name) for seed in range(8)]).mean(0) for name in XRAY_FINDINGS}
    assert means["covid"][0] > means["healthy"][0] + 5
    assert means["pneumonia"][0] > means["healthy"][0] + 5
    assert means["pneumonia"][1] > 1.5 * means["covid"][1]
