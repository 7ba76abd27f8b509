import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ext.dataset_conversion.folds import patient_folds, shuffled
from nnunet_ext.utilities.errors import UsageError

PATIENTS = st.dictionaries(st.text("abc123", min_size=1, max_size=4), st.sampled_from("ABCDEFGH"), min_size=2).filter(
    lambda patients: len(set(patients.values())) > 1
)


@given(PATIENTS, st.integers(2, 6), st.integers(0, 9))
def test_folds_part_cases_and_no_patient(patients, number, seed):
    folds = patient_folds(patients, number, seed)
    assert len(folds) == min(number, len(set(patients.values())))
    validated = [case for fold in folds for case in fold["val"]]
    assert sorted(validated) == sorted(patients)  # each exactly once
    for fold in folds:
        assert sorted(fold["train"] + fold["val"]) == sorted(patients)
        assert fold["train"] and fold["val"]
        assert not {patients[c] for c in fold["train"]} & {patients[c] for c in fold["val"]}


@given(PATIENTS, st.randoms())
def test_folds_do_not_depend_on_the_order_of_cases(patients, random):
    items = list(patients.items())
    random.shuffle(items)
    assert patient_folds(dict(items)) == patient_folds(patients)


@given(PATIENTS)
def test_fold_sizes_differ_by_one_patient_at_most(patients):
    sizes = [len(fold["val"]) for fold in patient_folds(patients)]
    largest = max(list(patients.values()).count(p) for p in patients.values())
    assert max(sizes) - min(sizes) <= largest


@pytest.mark.parametrize("seed", range(8))
def test_patients_with_most_cases_are_dealt_first(seed):
    patients = dict.fromkeys(("a1", "a2", "a3"), "a") | {"b": "b", "c": "c", "d": "d"}
    assert [len(fold["val"]) for fold in patient_folds(patients, 2, seed)] == [3, 3]


def test_seed_changes_the_folds():
    patients = {f"case{i}": f"patient{i}" for i in range(20)}
    assert patient_folds(patients, seed=1) != patient_folds(patients, seed=2)


def test_one_patient_cannot_be_divided():
    with pytest.raises(UsageError, match="at least 2 patients, got 1"):
        patient_folds({"a": "p", "b": "p"})


def test_shuffled_is_the_same_everywhere():
    assert shuffled("abcdef") == ["f", "c", "b", "a", "d", "e"]
    assert [x for x in shuffled("abcdefg") if x != "g"] == shuffled("abcdef")
