import numpy as np
import pytest

from nnunet_ext.phantom.vessels import coverage, vessel_tree


@pytest.mark.parametrize("radius_in_voxels", [0.3, 0.8, 3.0])
def test_a_tube_fills_its_cross_section(radius_in_voxels):
    shape = (40, 40, 40)
    line = np.stack([np.linspace(-1, 1, 400), np.full(400, 0.01), np.full(400, -0.02)], 1)
    filled = coverage(line, np.full(400, radius_in_voxels / 20), shape)
    assert filled.min() >= 0
    assert filled.max() <= 1
    assert filled.sum() / 40 == pytest.approx(np.pi * radius_in_voxels**2, rel=0.35)


def test_tubes_outside_the_field_leave_nothing():
    assert not coverage(np.array([[1.5, 0.0, 0.0], [0.0, -1.5, 0.0]]), np.array([0.02, 0.1]), (16, 16, 16)).any()


def test_the_tree_forks_and_thins_on_both_sides():
    points, radii = vessel_tree(np.random.default_rng(0), generations=4)
    assert points.shape == (len(radii), 3)
    outer = np.abs(points[:, 2]) > np.quantile(np.abs(points[:, 2]), 0.8)
    assert radii[outer].mean() < 0.7 * radii[~outer].mean()
    assert 0.3 < (points[:, 2] < 0).mean() < 0.7
