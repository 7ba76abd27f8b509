from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nnunet_ext.evaluation.comparison.statistics import (
    TESTS,
    bootstrap_interval,
    cohens_dz,
    holm,
    paired_test,
    permutation_p,
    rank_biserial,
    rank_differences,
    t_p,
    wilcoxon_p,
)

INF, NAN = math.inf, math.nan


def pairs(n, shift=0.0, seed=0):
    generator = np.random.default_rng(seed)
    first = generator.normal(0.7, 0.1, n)
    return first, first + shift + generator.normal(0, 0.05, n)


def enumerate_signs(differences):
    """Share of all sign patterns whose mean is at least as far from zero as the one observed."""
    observed = abs(np.mean(differences))
    means = [abs(np.mean(np.array(signs) * differences)) for signs in product((-1, 1), repeat=len(differences))]
    return np.mean([mean >= observed - 1e-12 for mean in means])


@pytest.mark.parametrize("n", [6, 8, 30, 80])
def test_raw_p_values_are_those_of_scipy(n):
    first, second = pairs(n, 0.02, seed=n)
    assert paired_test(first, second).p == pytest.approx(stats.wilcoxon(second, first).pvalue, rel=1e-9)
    assert paired_test(first, second, "t").p == pytest.approx(stats.ttest_rel(second, first).pvalue, rel=1e-9)


def test_permutation_is_the_enumeration_of_signs_where_small():
    first, second = pairs(8, 0.02, seed=3)
    found = paired_test(first, second, "permutation", resamples=2**8)
    assert found.p == pytest.approx(enumerate_signs(second - first), abs=1e-12)
    assert found.p == paired_test(first, second, "permutation", resamples=2**8, seed=5).p


def test_permutation_with_samples_is_close_to_the_enumeration():
    differences = np.subtract(*pairs(12, 0.02, seed=1))
    assert permutation_p(differences, 3000, seed=0) == pytest.approx(enumerate_signs(differences), abs=0.03)


@pytest.mark.parametrize("test", TESTS)
def test_false_positive_rate_is_five_per_cent(test):
    draws = [pairs(24, seed=seed) for seed in range(1000)]
    rate = np.mean([paired_test(*draw, test, resamples=200).p < 0.05 for draw in draws])
    assert 0.03 <= rate <= 0.07


@pytest.mark.parametrize("test", TESTS)
def test_a_clear_difference_is_found(test):
    found = [paired_test(*pairs(24, 0.05, seed), test, resamples=200) for seed in range(50)]
    assert np.mean([one.p < 0.05 for one in found]) > 0.9
    assert all(one.effect > 0 and one.mean_difference > 0 for one in found)
    assert 0.88 <= np.mean([one.low <= 0.05 <= one.high for one in found]) <= 1


def test_holm_by_hand():
    # Sorted 0.01 0.02 0.03 0.04, times 4 3 2 1: 0.04 0.06 0.06 0.04, made monotone.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_leaves_out_what_was_not_tested():
    found = holm([0.02, NAN, 0.03])
    assert found[0] == pytest.approx(0.04) and math.isnan(found[1]) and found[2] == pytest.approx(0.04)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_never_lowers_a_p_value_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    assert [adjusted[i] for i in np.argsort(p_values)] == sorted(adjusted)


def test_infinite_differences_stand_in_by_rank():
    first = np.array([1.0, INF, 5.0, INF, 2.0, 3.0])
    second = np.array([2.0, 9.0, INF, INF, -7.0, INF])
    found = rank_differences(first, second)
    assert found[[0, 3, 4]].tolist() == [1.0, 0.0, -9.0]
    assert found[2] == found[5] == -found[1] > 9.0


def test_an_infinite_pair_moves_p_as_the_largest_difference_does():
    first, second = pairs(9, 0.02, seed=2)
    with_infinity = paired_test(np.append(first, 0.5), np.append(second, INF))
    with_largest = paired_test(np.append(first, 0.5), np.append(second, 100.0))
    without = paired_test(first, second)
    assert with_infinity.p == with_largest.p != without.p
    assert with_infinity.effect == with_largest.effect > without.effect
    assert (with_infinity.n, with_infinity.infinite) == (10, 1)
    # The mean and its interval are of the finite pairs.
    assert with_infinity[3:6] == without[3:6]


@pytest.mark.parametrize("test", ["t", "permutation"])
def test_tests_of_the_mean_leave_infinite_pairs_out_and_count_them(test):
    first, second = pairs(9, 0.02)
    found = paired_test(np.append(first, [0.5, INF]), np.append(second, [INF, INF]), test)
    assert (found.n, found.infinite, found.undefined) == (9, 2, 0)
    assert found[3:] == paired_test(first, second, test)[3:]


def test_undefined_pairs_are_left_out_and_counted():
    first, second = pairs(9, 0.02)
    found = paired_test(np.append(first, [NAN, 0.5, NAN]), np.append(second, [0.5, NAN, INF]))
    assert found == paired_test(first, second)._replace(undefined=3)


def test_rank_biserial_by_hand():
    # |d| 1 2 3 4 have the ranks 1 2 3 4: (1 + 3 + 4 - 2) / 10; the zero is dropped.
    assert rank_biserial(np.array([1.0, -2.0, 3.0, 4.0, 0.0])) == pytest.approx(0.6)
    assert rank_biserial(np.array([0.5, 0.5])) == 1.0
    assert math.isnan(rank_biserial(np.zeros(4)))


def test_cohens_dz_by_hand():
    assert cohens_dz(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)
    assert math.isnan(cohens_dz(np.full(4, 0.3)))


@pytest.mark.parametrize("test", TESTS)
def test_equal_methods_have_p_one_and_no_effect(test):
    first, _ = pairs(9)
    found = paired_test(first, first, test)
    assert found.p == 1.0
    assert (found.mean_difference, found.low, found.high) == (0.0, 0.0, 0.0)
    assert math.isnan(found.effect)


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("first, second", [([], []), ([0.1], [0.2]), ([NAN, 0.1], [0.2, 0.3])])
def test_fewer_than_two_pairs_are_not_tested(test, first, second):
    found = paired_test(first, second, test)
    assert math.isnan(found.p) and math.isnan(found.effect) and math.isnan(found.low)


def test_constant_differences():
    constant = np.full(8, 0.25)
    assert bootstrap_interval(constant, 200, seed=0) == (0.25, 0.25)
    assert math.isnan(t_p(constant))
    assert wilcoxon_p(constant) == pytest.approx(2 / 2**8)


def test_all_pairs_infinite():
    found = paired_test([INF] * 6, [1.0] * 6)
    assert (found.n, found.infinite, found.effect) == (6, 6, -1.0)
    assert found.p == pytest.approx(2 / 2**6) and math.isnan(found.mean_difference)


def test_ties_up_to_rounding_are_ties():
    # In floating point 2/3 - 1/3 differs from 1/3 - 0, and 1 - 2/3 from both.
    found = rank_differences(np.array([1 / 3, 0, 2 / 3]), np.array([2 / 3, 1 / 3, 1]))
    assert len(set(found)) == 1


def test_interval_is_the_bca_interval_of_scipy_and_seeded():
    first, second = pairs(20, 0.02)
    found = bootstrap_interval(second - first, 500, seed=4)
    expected = stats.bootstrap((second - first,), np.mean, n_resamples=500, rng=np.random.default_rng(4))
    assert found == tuple(expected.confidence_interval)
    assert found == bootstrap_interval(second - first, 500, seed=4) != bootstrap_interval(second - first, 500, seed=5)


def test_interval_is_the_percentile_interval_where_bca_is_degenerate():
    # The skewness of numbers as small as these is 0 / 0.
    differences = np.subtract(*pairs(20)) * 1e-170
    expected = stats.bootstrap(
        (differences,), np.mean, n_resamples=500, method="percentile", rng=np.random.default_rng(0)
    )
    assert bootstrap_interval(differences, 500, seed=0) == tuple(expected.confidence_interval)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.one_of(st.floats(0, 1, width=16), st.sampled_from([INF, NAN]))] * 2), min_size=2, max_size=15
    ),
    st.sampled_from(sorted(TESTS)),
)
def test_swapping_the_methods_flips_signs_and_keeps_p(values, test):
    first, second = np.array(values).T
    there = paired_test(first, second, test, resamples=200)
    back = paired_test(second, first, test, resamples=200)
    assert there[:3] == back[:3]
    assert there.p == pytest.approx(back.p, nan_ok=True)
    flipped = [-back.mean_difference, -back.high, -back.low, -back.effect]
    assert there[3:7] == pytest.approx(flipped, abs=1e-9, nan_ok=True)


def test_zeros_do_not_make_a_sample_large():
    # Four of twenty pairs differ, all to one side: 2 / 2**4, whatever the zeros.
    assert paired_test([2] * 20, [2] * 16 + [math.inf] * 4).p == pytest.approx(0.125)
    assert wilcoxon_p(np.array([1.0, 2, 3, 4, 5] + [0] * 9)) == pytest.approx(2 / 2**5)
    assert paired_test([0, 0, 0, 0], [0, 0, 1, 2]).unequal == 2


@pytest.mark.parametrize("zeros", [0, 1, 40])
def test_p_is_that_of_scipy_on_the_pairs_that_differ(zeros):
    differences = np.random.default_rng(0).normal(0.3, 1, 25)
    expected = stats.wilcoxon(differences).pvalue
    assert wilcoxon_p(np.concatenate([differences, np.zeros(zeros)])) == pytest.approx(expected)
