import pytest

from nnunet_ext.dataset_conversion.covid19_20 import folds, patient, plan
from nnunet_ext.utilities.errors import UsageError


def test_pairs_are_found_in_nested_folders(challenge):
    source = challenge((3, 11), unlabelled=(1,))
    cases = {case.name[-4:]: case for case in plan(source.parent).cases}
    assert {name: (case.split, case.patient) for name, case in cases.items()} == {
        "0001": ("test", "0001"),
        "0003": ("train", "0003"),
        "0011": ("train", "0011"),
    }
    assert cases["0003"].image.name == "volume-covid19-A-0003_ct.nii.gz"
    assert cases["0003"].label.name == "volume-covid19-A-0003_seg.nii.gz"
    assert cases["0001"].label is None and cases["0001"].problem is None


def test_ct_and_mask_without_the_other(challenge):
    source = challenge((3, 11))
    (source / "Train" / "volume-covid19-A-0003_ct.nii.gz").unlink()
    (source / "Train" / "volume-covid19-A-0011_seg.nii.gz").unlink()
    problems = {case.name: case.problem for case in plan(source).cases}
    assert problems == {
        "volume-covid19-A-0003": "no volume-covid19-A-0003_ct.nii.gz beside it",
        "volume-covid19-A-0011": "no volume-covid19-A-0011_seg.nii.gz beside it",
    }


def test_no_ct_at_all(tmp_path):
    with pytest.raises(UsageError, match=r"holds no \*_ct.nii.gz"):
        plan(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        plan(tmp_path / "nowhere")


@pytest.mark.parametrize("suffix", ["", "_1", "_day003"])
def test_scans_of_one_patient(suffix):
    assert patient(f"volume-covid19-A-0047{suffix}") == "0047"


def published():
    """149 cases up to number 537 and 50 from 547 on; as in the set, some patients have two scans."""
    names = [f"volume-covid19-A-{number:04d}" for number in range(3, 3 + 145)]
    names += ["volume-covid19-A-0003_1", "volume-covid19-A-0004_1", "volume-covid19-A-0536", "volume-covid19-A-0537"]
    names += [f"volume-covid19-A-{number:04d}" for number in range(547, 597)]
    return {name: patient(name) for name in names}


def test_published_split_is_fold_0():
    patients = published()
    splits = folds(patients)
    assert len(splits) == 6
    assert (len(splits[0]["train"]), len(splits[0]["val"])) == (149, 50)
    assert max(patients[name] for name in splits[0]["train"]) == "0537"
    assert min(patients[name] for name in splits[0]["val"]) == "0547"
    tuned = [name for fold in splits[1:] for name in fold["val"]]
    assert sorted(tuned) == splits[0]["train"]
    for fold in splits:
        assert not {patients[name] for name in fold["train"]} & {patients[name] for name in fold["val"]}


def test_other_cases_get_seeded_folds():
    patients = published()
    assert len(folds(patients | {"volume-covid19-A-0540": "0540"})) == 5
    patients.pop("volume-covid19-A-0537")
    assert len(folds(patients)) == 5
    assert len(folds({"a": "a", "b": "b", "c": "c"})) == 3
