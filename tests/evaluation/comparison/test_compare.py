from __future__ import annotations

import math

import numpy as np
import pytest
from toy_results import make_column, make_methods, make_result

from nnunet_ext.evaluation.comparison.compare import compare_methods, metric_label
from nnunet_ext.evaluation.comparison.pairing import Method
from nnunet_ext.evaluation.comparison.statistics import holm, paired_test
from nnunet_ext.evaluation.results import TABLE_METRICS
from nnunet_ext.utilities.errors import UsageError

INF, NAN = math.inf, math.nan
A = np.random.default_rng(0).uniform(0.4, 0.8, 12)
B = A + np.random.default_rng(1).uniform(-0.02, 0.1, 12)
C = A + np.random.default_rng(2).uniform(-0.1, 0.1, 12)


def two_classes(lung, lesion):
    columns = {"lung": lung, "lesion": lesion}
    return make_result({(f"{i:02d}", n): {"DSC": float(c[i])} for i in range(len(lung)) for n, c in columns.items()})


def ranks(metric, **columns):
    return compare_methods(make_methods(metric, **columns), metrics=[metric]).ranks("", "lesion", metric)


def test_the_baseline_is_tested_against_each_other_method():
    found = compare_methods(make_methods("DSC", a=A, b=B, c=C), metrics=["DSC"], resamples=300, seed=7)
    assert [(one.first, one.second) for one in found.tests] == [("a", "b"), ("a", "c")]
    one = found.tests[0]
    expected = paired_test(A, B, resamples=300, seed=7)
    assert {name: getattr(one, name) for name in expected._fields} == expected._asdict()
    assert one.p_holm == holm([test.p for test in found.tests])[0] > one.p
    assert (found.seed, found.resamples, found.surface_definition, found.tolerance_mm) == (7, 300, "A", 3.0)


def test_all_pairs():
    found = compare_methods(make_methods("DSC", a=A, b=B, c=C), metrics=["DSC"], all_pairs=True)
    assert [(one.first, one.second) for one in found.tests] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_the_family_is_every_pair_and_class_of_one_metric_and_stratum():
    methods = [Method(n, (two_classes(x, y),)) for n, x, y in (("a", A, B), ("b", B, C), ("c", C, A))]
    strata = {f"{i:02d}": "even" if i % 2 == 0 else "odd" for i in range(12)}
    found = compare_methods(methods, metrics=["DSC", "IoU"], strata=strata)
    assert found.classes == ["lung", "lesion", "mean"]
    for stratum in ("", "even", "odd"):
        family = [one for one in found.tests if (one.stratum, one.metric) == (stratum, "DSC")]
        assert len(family) == 6
        assert [one.p_holm for one in family] == holm([one.p for one in family])


def test_strata_are_summarised_and_tested_apart_after_all_cases():
    strata = {f"case_{i:02d}": "large" if i < 8 else "small" for i in reversed(range(12))}
    found = compare_methods(make_methods("DSC", a=A, b=B), metrics=["DSC"], strata=strata)
    assert found.strata == ["", "small", "large"]
    assert [one.n for one in found.tests] == [12, 4, 8]
    assert [found.size(stratum) for stratum in found.strata] == [12, 4, 8]
    assert found.summaries["large", "lesion", "DSC", "b"]["mean"] == pytest.approx(B[:8].mean())
    assert found.tests[2].p == paired_test(A[:8], B[:8]).p
    assert "fewer than 6 pairs that differ, so no p-value below 0.05 is possible: small, lesion (DSC)" in found.notes


def test_a_stratum_of_one_case_is_summarised_but_not_tested():
    strata = {f"case_{i:02d}": "rest" if i else "alone" for i in range(12)}
    found = compare_methods(make_methods("DSC", a=A, b=B), metrics=["DSC"], strata=strata)
    assert [one.stratum for one in found.tests] == ["", "rest"]
    assert found.summaries["alone", "lesion", "DSC", "a"]["n"] == 1
    assert "strata of one case are summarised but not tested: alone" in found.notes


def test_default_metrics_and_doubled_ones():
    methods = make_methods("DSC", a=A, b=B)
    assert compare_methods(methods, resamples=100).metrics == list(TABLE_METRICS)
    assert compare_methods(methods, metrics=["DSC", "IoU", "DSC"], resamples=100).metrics == ["DSC", "IoU"]


def test_absolute_values_of_signed_errors():
    found = compare_methods(make_methods("VE", a=[-9, 9] * 6, b=[1, 1.5] * 6), metrics=["VE"])
    assert found.summaries["", "lesion", "VE", "a"]["mean"] == 9
    assert found.tests[0].mean_difference == -7.75
    assert found.tests[0].better == "b" and found.ranks("", "lesion", "VE") == {"a": 2, "b": 1}
    assert (metric_label("VE"), metric_label("DSC")) == ("|VE|", "DSC")


def test_infinite_and_unmatched_pairs_are_noted():
    methods = make_methods("HD95", a=[*A[:10], INF, NAN], b=[*B[:10], 3, INF])
    notes = "\n".join(compare_methods(methods, metrics=["HD95"]).notes)
    assert "ranked by the test as the largest differences" in notes and "lesion, b against a: HD95 1" in notes
    assert "only one of the two is undefined" in notes
    notes = "\n".join(compare_methods(methods, metrics=["HD95"], test="t").notes)
    assert "left out of the test and of the mean difference" in notes
    assert compare_methods(make_methods("HD95", a=A, b=B), metrics=["HD95"]).notes == []


def test_few_pairs_are_noted_except_for_t():
    methods = make_methods("DSC", a=A[:5], b=B[:5])
    expected = ["fewer than 6 pairs that differ, so no p-value below 0.05 is possible: all cases, lesion (DSC)"]
    assert compare_methods(methods, metrics=["DSC"]).notes == expected
    assert compare_methods(methods, metrics=["DSC"], test="permutation").notes == expected
    assert compare_methods(methods, metrics=["DSC"], test="t").notes == []
    assert all(
        compare_methods(methods, metrics=["DSC"], test=t).tests[0].p >= 0.05 for t in ("wilcoxon", "permutation")
    )


def test_six_pairs_are_enough_for_p_below_five_per_cent():
    found = compare_methods(make_methods("DSC", a=A[:6], b=A[:6] + 0.1), metrics=["DSC"])
    assert found.tests[0].p < 0.05 and found.notes == []


def test_better_follows_the_direction_of_the_metric():
    assert compare_methods(make_methods("DSC", a=A, b=A + 0.1), metrics=["DSC"]).tests[0].better == "b"
    assert compare_methods(make_methods("HD95", a=A, b=A + 0.1), metrics=["HD95"]).tests[0].better == "a"
    assert compare_methods(make_methods("DSC", a=A, b=A), metrics=["DSC"]).tests[0].better == ""


def test_ranks():
    assert ranks("DSC", a=[0.5, 0.5], b=[0.8, 0.8], c=[0.6, 0.6]) == {"a": 3, "b": 1, "c": 2}
    assert ranks("HD95", a=[5, 5], b=[8, 8], c=[5, 5]) == {"a": 1, "b": 3, "c": 1}
    assert ranks("DSC", a=[0.1, 0.3], b=[0.3, 0.1 + 1e-17]) == {"a": 1, "b": 1}


def test_more_infinite_values_never_rank_better():
    assert ranks("HD95", a=[1, INF], b=[50, 50], c=[INF, INF]) == {"a": 2, "b": 1, "c": 3}
    assert ranks("HD95", a=[NAN, NAN], b=[50, INF], c=[NAN, NAN]) == {"a": 4, "b": 1, "c": 4}


def test_repeats_enter_the_tests_as_averages():
    repeats = Method("b", (make_column("DSC", B), make_column("DSC", C)))
    found = compare_methods([*make_methods("DSC", a=A), repeats], metrics=["DSC"]).tests[0]
    assert found.n == 12 and found.p == pytest.approx(paired_test(A, (B + C) / 2).p)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"metrics": ["Dice"]}, "no metric Dice"),
        ({"metrics": []}, "no metric to compare"),
        ({"test": "sign"}, "no test 'sign'"),
        ({"resamples": 10}, "10 resamples are too few"),
        ({"strata": {"case_00": "x"}}, "no stratum is given for the cases case_01, case_02"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(UsageError, match=message):
        compare_methods(make_methods("DSC", a=A, b=B), **arguments)


def test_two_methods_of_different_names():
    (one,) = make_methods("DSC", a=A)
    with pytest.raises(UsageError, match="at least two methods are needed to compare, got a"):
        compare_methods([one])
    with pytest.raises(UsageError, match="its own name"):
        compare_methods([one, one, *make_methods("DSC", b=B)])
