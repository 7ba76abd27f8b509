from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nnunet_ext.architectures.uci_topology import Topology, limited_strides, reduction_ratio


def test_paper_sizes():
    assert Topology.paper().sizes((32, 256, 256)) == [
        (32, 256, 256), (32, 128, 128), (16, 64, 64), (8, 32, 32), (8, 16, 16), (8, 8, 8),
    ]  # fmt: skip


def test_xray_sizes():
    assert [n for n, _ in Topology.xray((224, 224)).sizes((224, 224))] == [224, 112, 56, 28, 14, 7]


def test_plan_with_seven_stages_loses_the_surplus():
    strides = [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)]
    topology = Topology.from_plan(strides, [(1, 3, 3)] + [(3, 3, 3)] * 6, (32, 256, 256))
    assert topology.strides == tuple(strides[1:6])
    assert topology.kernel_sizes == ((1, 3, 3),) + ((3, 3, 3),) * 5


def test_plan_with_five_stages_is_padded():
    strides = [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)]
    topology = Topology.from_plan(strides, [(3, 3, 3)] * 5, (16, 96, 96))
    assert topology.strides == (*strides[1:], (1, 1, 1))
    assert topology.sizes((16, 96, 96))[-1] == (4, 6, 6)
    assert len(topology.kernel_sizes) == 6


def test_no_axis_falls_below_two_voxels():
    topology = Topology.from_plan([(2, 2, 2)] * 6, [(3, 3, 3)] * 6, (4, 64, 64))
    assert topology.sizes((4, 64, 64))[-1] == (2, 2, 2)


def test_a_2d_plan_is_refused():
    with pytest.raises(ValueError, match=r"patch_size=\[256, 256\] is not 3D"):
        Topology.from_plan([(1, 1)] * 6, [(3, 3)] * 6, (256, 256))


def test_a_single_voxel_is_refused():
    with pytest.raises(ValueError, match=r"patch_size=\[4, 32, 32\] is too small"):
        Topology.paper().sizes((4, 32, 32))


@pytest.mark.parametrize(
    ("nominal", "grid", "ratio"),
    [(8, (16, 64, 64), (8, 8, 8)), (8, (14, 10, 6), (7, 5, 6)), (4, (13, 9, 1), (1, 3, 1)), (1, (8, 8), (1, 1))],
)
def test_reduction_ratio(nominal, grid, ratio):
    assert reduction_ratio(nominal, grid) == ratio


@given(nominal=st.integers(1, 16), size=st.integers(1, 200))
def test_reduction_ratio_divides_and_is_the_largest(nominal, size):
    (ratio,) = reduction_ratio(nominal, (size,))
    assert size % ratio == 0 and ratio <= nominal
    assert all(size % larger for larger in range(ratio + 1, nominal + 1))


@given(size=st.integers(2, 300), strides=st.lists(st.integers(1, 3), min_size=5, max_size=5))
def test_limited_strides_keep_two_voxels(size, strides):
    limited = limited_strides([(s,) for s in strides], (size,))
    assert all(new in ((1,), (old,)) for new, old in zip(limited, strides, strict=True))
    assert Topology(limited, ((3,),) * 6).sizes((size,))[-1][0] >= 2


@settings(deadline=None)
@given(size=st.integers(1, 60), stride=st.integers(1, 3), kernel=st.sampled_from([1, 3, 5]))
def test_sizes_are_those_of_the_convolution(size, stride, kernel):
    with torch.device("meta"):
        output = nn.Conv1d(1, 1, kernel, stride, kernel // 2)(torch.empty(1, 1, size))
    assert output.shape[2] == -(-size // stride)
