import re

import numpy as np
import pytest

from nnunet_ext.inference.cases import cases_in_folder, check_existence, check_numbering
from nnunet_ext.utilities.errors import UsageError

TWO_CHANNELS = {"channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz"}


def touch(folder, *names):
    for name in names:
        (folder / name).touch()
    return folder


def no_reading(_files):
    raise AssertionError("complete cases need not be read")


def test_files_are_grouped_by_case(tmp_path):
    touch(tmp_path, "b_0000.nii.gz", "a_1_0001.nii.gz", "a_1_0000.nii.gz", "labels.csv", ".hidden_0000.nii.gz")
    cases = cases_in_folder(tmp_path, ".nii.gz")
    assert cases == [[str(tmp_path / f"a_1_000{i}.nii.gz") for i in (0, 1)], [str(tmp_path / "b_0000.nii.gz")]]


def test_cases_are_sorted_by_name_not_by_file(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "a_b_0000.nii.gz", "a_0001.nii.gz")
    assert [len(files) for files in cases_in_folder(tmp_path, ".nii.gz")] == [2, 1]


def test_unusable_folders_are_named(tmp_path):
    with pytest.raises(UsageError, match="absent does not exist"):
        cases_in_folder(tmp_path / "absent", ".nii.gz")
    touch(tmp_path, "a_0000.png")
    with pytest.raises(UsageError, match=r"no \*\.nii\.gz file"):
        cases_in_folder(tmp_path, ".nii.gz")
    touch(tmp_path, "b.png", "c_00.png")
    with pytest.raises(UsageError, match=r"b\.png, c_00\.png without channel number"):
        cases_in_folder(tmp_path, ".png")


def test_complete_cases_pass_unread(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz")
    check_numbering(cases_in_folder(tmp_path, ".nii.gz"), TWO_CHANNELS, no_reading)
    touch(tmp_path / ".", "b_0000.nii")
    one = {"channel_names": {"0": "CT"}, "file_ending": ".nii"}
    check_numbering(cases_in_folder(tmp_path, ".nii"), one, no_reading)


def test_every_missing_and_surplus_file_is_named(tmp_path):
    touch(tmp_path, "a_0000.nii.gz", "b_0001.nii.gz", "c_0000.nii.gz", "c_0001.nii.gz", "c_0007.nii.gz")
    with pytest.raises(UsageError) as error:
        check_numbering(cases_in_folder(tmp_path, ".nii.gz"), TWO_CHANNELS, lambda _: (np.zeros((1, 4, 4)), {}))
    message = str(error.value)
    assert "case a lacks a_0001.nii.gz" in message
    assert "case b lacks b_0000.nii.gz" in message
    assert "case c has no channel for c_0007.nii.gz" in message
    assert "0000 T1, 0001 T2" in message


def test_one_file_may_hold_all_channels(tmp_path):
    touch(tmp_path, "a_0000.nii.gz")
    check_numbering(cases_in_folder(tmp_path, ".nii.gz"), TWO_CHANNELS, lambda _: (np.zeros((2, 4, 4)), {}))


def test_unreadable_and_absent_files_are_named(tmp_path):
    def broken(_files):
        raise RuntimeError("bad header")

    touch(tmp_path, "a_0000.nii.gz")
    with pytest.raises(UsageError, match=r"a_0000\.nii\.gz cannot be read: bad header"):
        check_numbering(cases_in_folder(tmp_path, ".nii.gz"), TWO_CHANNELS, broken)
    with pytest.raises(UsageError, match=re.escape(str(tmp_path / "z"))):
        check_existence([[str(tmp_path / "a_0000.nii.gz"), str(tmp_path / "z")]])
