from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from nnunet_ext.evaluation.surfels import areas, surfels


def test_areas_by_hand():
    z, y, x = 5.0, 2.0, 0.5
    table = areas((z, y, x))
    assert table.dtype == np.float64 and table[0] == table[255] == 0
    # One voxel of eight: the triangle through the midpoints of the three edges that meet there.
    triangle = math.sqrt((z * y / 4) ** 2 + (z * x / 4) ** 2 + (y * x / 4) ** 2) / 2
    assert table[[1, 2, 4, 8, 16, 32, 64, 128]] == pytest.approx([triangle] * 8)
    # Four in a plane: a voxel's face. The two slices are 11110000.
    assert table[[0b11110000, 0b11001100, 0b10101010]] == pytest.approx([y * x, z * x, z * y])
    # Two neighbours along x: a bevel of the length of a voxel.
    assert table[0b11000000] == pytest.approx(x * math.hypot(z / 2, y / 2))
    # Two that touch at a corner only are apart: two triangles.
    assert table[0b10000001] == pytest.approx(2 * triangle)


def test_lengths_by_hand():
    row, column = 2.0, 0.5
    table, diagonal = areas((row, column)), math.hypot(2.0, 0.5) / 2
    assert len(table) == 16
    assert table[[0b1000, 0b0111]] == pytest.approx([diagonal] * 2)
    assert table[0b1100] == column and table[0b1010] == row
    assert table[0b1001] == pytest.approx(2 * diagonal)


def test_a_mask_and_its_complement_have_the_same_surface():
    for spacing in ((1.0, 2.0, 3.0), (0.7, 5.0), (1.0,)):
        table = areas(spacing)
        assert np.array_equal(table, table[::-1]) and (table[1:-1] > 0).all()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 2.0, 0.5), (0.7, 3.1, 1.3), (0.7, 3.1), (1.0, 1.0)])
def test_the_table_is_that_of_monai_and_surface_distance(spacing):
    pytest.importorskip("monai")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.metrics.utils import get_code_to_measure_table

        theirs, _ = get_code_to_measure_table(spacing)
    assert areas(spacing) == pytest.approx(np.asarray(theirs, dtype=np.float64), rel=1e-6, abs=1e-6)  # fp32


def test_the_surface_of_a_box():
    mask = np.zeros((7, 8, 9), dtype=bool)
    mask[2:5, 1:7, 3:8] = True  # 3 x 6 x 5 voxels
    places, found = surfels(mask, (1.0, 1.0, 1.0))
    assert places.shape == (8, 9, 10)
    assert np.count_nonzero(places) == 4 * 7 * 6 - 2 * 5 * 4  # all corners of the box's grid but the inner ones
    # Faces without their outermost half voxel, bevelled edges, 8 triangles.
    faces = 2 * (2 * 5 + 2 * 4 + 5 * 4)
    edges = 4 * (2 + 5 + 4) * math.sqrt(0.5)
    assert found.values().sum() == pytest.approx(faces + edges + 8 * math.sqrt(3) / 8)


def test_outside_the_image_is_background_and_nothing_has_no_surface():
    assert np.count_nonzero(surfels(np.ones((2, 2), dtype=bool), (1.0, 1.0))[0]) == 8  # all of 3 x 3 but the middle
    assert np.count_nonzero(surfels(np.ones(3, dtype=bool), (1.0,))[0]) == 2
    places, found = surfels(np.zeros((2, 3, 4), dtype=bool), (1.0, 1.0, 1.0))
    assert not places.any() and found.values().size == 0
