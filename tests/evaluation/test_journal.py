from __future__ import annotations

import math
import os

import pytest

from nnunet_ext.evaluation.journal import Journal, journal_key, remove_journal
from nnunet_ext.utilities.errors import UsageError


def test_rows_come_back_as_they_were(tmp_path):
    rows = [{"case": "a", "DSC": 0.1 + 0.2, "HD": math.inf, "SEN": math.nan, "TP": 3}]
    journal = Journal(tmp_path / "new")
    assert journal.finished == {}
    journal.add("one", rows)
    journal.add("two", [])
    again = Journal(tmp_path / "new")
    assert list(again.finished) == ["one", "two"]
    assert repr(again.finished["one"]) == repr(rows)
    remove_journal(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    remove_journal(tmp_path / "new")


@pytest.mark.parametrize("garbage", ["{", "[]", "3", '{"rows": []}', "\x00\xff"])
def test_what_is_no_entry_is_passed_over(tmp_path, garbage):
    journal = Journal(tmp_path)
    journal.add("one", [])
    with journal.path.open("a") as file:
        file.write("\n" + garbage)
    journal.add("two", [])
    assert list(Journal(tmp_path).finished) == ["one", "two"]


def test_the_key_tells_settings_and_files(tmp_path):
    file = tmp_path / "a"
    file.write_text("content")
    os.utime(file, (1, 1))
    key = journal_key([1, "A"], [file, None])
    assert key == journal_key([1, "A"], [file, None])
    assert key != journal_key([2, "A"], [file, None]) and key != journal_key([1, "A"], [None, file])
    os.utime(file, (2, 2))
    assert key != journal_key([1, "A"], [file, None])
    file.write_text("longer content")
    os.utime(file, (1, 1))
    assert key != journal_key([1, "A"], [file, None])


def test_a_full_disk_is_one_message(tmp_path):
    journal = Journal(tmp_path / "results")
    remove_journal(tmp_path / "results")
    journal.path.mkdir()
    with pytest.raises(UsageError, match=r"cannot be written .*make room and run the same command again"):
        journal.add("one", [])
