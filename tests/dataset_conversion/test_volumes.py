import numpy as np
import pytest
import SimpleITK

from nnunet_ext.dataset_conversion.base import BadCaseError
from nnunet_ext.dataset_conversion.volumes import checked_label, compare_geometry, numbered, voxels_per_label

BRATS = {0: 0, 1: 2, 2: 1, 4: 3}


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_values_become_labels(dtype):
    label = checked_label(np.array([[4, 2], [1, 0]], dtype), BRATS)
    assert label.dtype == np.uint8 and label.tolist() == [[3, 1], [2, 0]]
    assert voxels_per_label(label, 5) == {"0": 1, "1": 1, "2": 1, "3": 1, "4": 0}


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        ([0, 3], BRATS, "label out of range: 3; expected 0, 1, 2, 4"),
        ([0.5, 1], BRATS, "label out of range: 0.5; expected"),
        ([-1, 256, 1], numbered(3), "label out of range: -1, 256; expected 0 to 2"),
        (range(2, 9), numbered(2), "label out of range: 2, 3, 4, 5, 6, ...; expected 0 to 1"),
    ],
)
def test_other_values(values, labels, message):
    with pytest.raises(BadCaseError, match=message):
        checked_label(np.array(list(values)), labels)


def test_geometry_is_compared_under_the_names_given():
    first, second = (SimpleITK.Image(4, 4, 4, SimpleITK.sitkUInt8) for _ in range(2))
    assert compare_geometry(first, second, ("AP", "VP")) == []
    second.SetSpacing((1.0, 1.0, 2.0))
    with pytest.raises(BadCaseError, match=r"spacing mismatch: AP \(1, 1, 1\), VP \(1, 1, 2\)"):
        compare_geometry(first, second, ("AP", "VP"))
    assert compare_geometry(first, second, ignore=True) == ["spacing"]
