import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_ext.phantom.anatomy import Tissue
from nnunet_ext.phantom.lesions import FINDINGS
from nnunet_ext.phantom.thorax import thorax
from nnunet_ext.utilities.errors import UsageError

SHAPE, SPACING = (32, 64, 64), (7.5, 4.5, 4.5)
SEEDS = range(8)


def patient(seed, *findings):
    return thorax(seed, SHAPE, SPACING, findings)


def test_one_seed_is_one_patient():
    first, again, other = patient(3, "covid"), patient(3, "covid"), patient(4, "covid")
    np.testing.assert_array_equal(first.ct, again.ct)
    np.testing.assert_array_equal(first.lesions["covid"], again.lesions["covid"])
    assert np.mean(first.tissues != other.tissues) > 0.02


def test_ct_is_int16_in_scanner_range():
    ct = patient(0, "covid").ct
    assert ct.dtype == np.int16
    assert ct.shape == SHAPE
    assert ct.min() >= -1024
    assert 500 < ct.max() < 1500


@pytest.mark.parametrize(
    ("tissue", "low", "high"),
    [
        (Tissue.AIR, -1024, -940),
        (Tissue.FAT, -150, -60),
        (Tissue.MUSCLE, 0, 100),
        (Tissue.LUNG, -920, -650),
        (Tissue.BLOOD, -10, 90),
        (Tissue.ORGAN, 10, 110),
        (Tissue.SPONGY_BONE, 150, 300),
    ],
)
def test_hounsfield_units_of_tissues(tissue, low, high):
    healthy = thorax(1, (48, 96, 96), findings=())
    inside = ndimage.binary_erosion(healthy.tissues == tissue)
    assert inside.sum() > 200
    p10, p90 = np.percentile(healthy.ct[inside], (10, 90))
    assert low < p10 < p90 < high


def test_bone_is_denser_than_soft_tissue():
    healthy = patient(1)
    assert np.percentile(healthy.ct[healthy.tissues == Tissue.CORTICAL_BONE], 75) > 300


@pytest.mark.parametrize("finding", FINDINGS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_lesion_is_dense_lies_in_the_lungs_and_changes_nothing_else(seed, finding):
    sick, healthy = patient(seed, finding), patient(seed)
    mask = sick.lesions[finding]
    assert mask.any()
    assert not np.any(mask & ~sick.lungs)
    difference = sick.ct.astype(int) - healthy.ct
    # A vessel in a lesion is as dense as it was.
    assert difference[mask].mean() > 200
    assert difference.min() >= -2
    # The fringe outside the mask fades within a few voxels; the rest is untouched.
    assert not difference[~ndimage.binary_dilation(mask | sick.lungs, iterations=3)].any()
    assert np.abs(difference[sick.lungs & ~mask]).mean() < 0.2 * difference[mask].mean()


@pytest.mark.parametrize("seed", SEEDS)
def test_covid_is_ground_glass_in_both_lungs_under_the_pleura(seed):
    sick = patient(seed, "covid")
    mask = sick.lesions["covid"]
    assert -600 < sick.ct[mask].mean() < -100
    assert sick.ct[mask].mean() - sick.ct[sick.lungs & ~mask].mean() > 250
    assert 0.02 < mask.sum() / sick.lungs.sum() < 0.5
    right, left = mask[..., :32].sum(), mask[..., 32:].sum()
    assert min(right, left) > 0.02 * max(right, left)


def test_covid_prefers_the_outer_lung():
    """The share of affected tissue falls from the pleura to the core of the lungs."""
    outer, core = [], []
    for seed in SEEDS:
        sick = patient(seed, "covid")
        depth = ndimage.distance_transform_edt(sick.lungs, sampling=SPACING)
        low, high = np.quantile(depth[sick.lungs], (1 / 3, 5 / 6))
        outer.append(sick.lesions["covid"][sick.lungs & (depth <= low)].mean())
        core.append(sick.lesions["covid"][depth >= high].mean())
    assert np.mean(outer) > 1.3 * np.mean(core)


@pytest.mark.parametrize("finding", ["consolidation", "effusion"])
def test_consolidation_and_effusion_are_on_one_side(finding):
    for seed in SEEDS:
        mask = patient(seed, finding).lesions[finding]
        sides = mask[..., :28].sum(), mask[..., 36:].sum()
        assert min(sides) == 0
        assert max(sides) > 100


def test_masks_of_several_findings_do_not_overlap():
    for seed in SEEDS:
        sick = patient(seed, "covid", "tumour", "effusion")
        assert list(sick.lesions) == ["covid", "tumour", "effusion"]
        assert sum(mask.astype(int) for mask in sick.lesions.values()).max() == 1


def test_healthy_has_no_lesions():
    assert patient(0).lesions == {}


@settings(max_examples=6, deadline=None)
@given(shape=st.tuples(*[st.integers(16, 40)] * 3), seed=st.integers(0, 2**40))
def test_any_shape_and_seed(shape, seed):
    sick = thorax(seed, shape, (5.0, 3.0, 3.0), ("covid",))
    assert sick.ct.shape == sick.lesions["covid"].shape == shape
    assert sick.lesions["covid"].any()


def test_unusable_input_is_named():
    with pytest.raises(UsageError, match=r"findings flu unknown; choose from covid"):
        thorax(0, findings=("covid", "flu"))
    with pytest.raises(UsageError, match=r"shape \(8, 64, 64\)"):
        thorax(0, shape=(8, 64, 64))
