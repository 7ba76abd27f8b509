from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from nnunet_ext.phantom.anatomy import (
    Tissue,
    coordinates,
    draw_build,
    ellipsoid,
    smooth_minimum,
    superellipse,
    tissue_map,
    tube_distance,
)

SHAPE = (32, 64, 64)


def point(z, y, x):
    return tuple(np.array([value], np.float32) for value in (z, y, x))


def healthy(seed):
    build = draw_build(np.random.default_rng(seed))
    position = coordinates(build, SHAPE)
    return position, tissue_map(build, position)


def test_tube_distance_to_the_line_and_beyond_its_ends():
    assert tube_distance(point(0.5, 0.3, 0.4), (0, 0, 0), (1, 0, 0)) == pytest.approx(0.5)
    assert tube_distance(point(2.0, 0.0, 0.0), (0, 0, 0), (1, 0, 0)) == pytest.approx(1.0)


def test_ellipsoid_is_one_on_its_surface():
    assert ellipsoid(point(0.1, 0.2, 0.3 + 0.5), (0.1, 0.2, 0.3), (0.1, 0.1, 0.5)) == pytest.approx(1.0)


def test_superellipse_of_power_two_is_the_radius():
    assert superellipse(np.float32([3]), np.float32([-4]), 2.0) == pytest.approx(5.0)


def test_smooth_minimum_equals_its_formula():
    values = (np.float32([0.1]), np.float32([0.13]), np.float32([0.3]))
    expected = -0.05 * np.log(sum(np.exp(-float(v[0]) / 0.05) for v in values))
    assert smooth_minimum(values, 0.05) == pytest.approx(expected, abs=1e-6)


def test_straight_patient_has_voxel_centres_as_coordinates():
    build = replace(draw_build(np.random.default_rng(0)), lean=0.0, turn=0.0)
    z, y, x = coordinates(build, (4, 2, 8))
    np.testing.assert_allclose(z[:, 0, 0], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(y[0, :, 0], [-0.5, 0.5])
    np.testing.assert_allclose(x[0, 0, [0, -1]], [-0.875, 0.875])


@pytest.mark.parametrize("seed", range(6))
def test_two_lungs_inside_one_body(seed):
    (z, y, x), tissue = healthy(seed)
    lungs, number = ndimage.label(tissue == Tissue.LUNG)
    sizes = np.sort(ndimage.sum_labels(np.ones(SHAPE), lungs, range(1, number + 1)))[::-1]
    assert sizes[1] > 0.5 * sizes[0]
    assert sizes[:2].sum() > 0.99 * sizes.sum()
    body = tissue != Tissue.AIR
    assert 0.1 < (tissue == Tissue.LUNG).sum() / body.sum() < 0.5
    assert not np.any((tissue == Tissue.LUNG) & ~ndimage.binary_erosion(body, border_value=1))
    assert x[tissue == Tissue.BLOOD].mean() > 0.02  # the heart is on the patient's left
    assert y[tissue == Tissue.SPONGY_BONE].mean() > 0.1  # the spine is at the back
    assert z[tissue == Tissue.ORGAN].max() < 0.1  # the liver is at the feet
    assert set(np.unique(tissue)) >= set(Tissue) - {Tissue.AIRWAY}


def test_patients_differ():
    volumes = [int((healthy(seed)[1] == Tissue.LUNG).sum()) for seed in range(6)]
    assert np.std(volumes) > 0.03 * np.mean(volumes)
