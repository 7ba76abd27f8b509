import errno
import os

import pytest

from nnunet_ext.dataset_conversion.base import Case, list_file, place, unique_by_name
from nnunet_ext.dataset_conversion.registry import CONVERTERS, converter
from nnunet_ext.utilities.errors import UsageError


def test_place_links(tmp_path):
    (tmp_path / "a").write_text("x")
    place(tmp_path / "a", tmp_path / "b" / "a")
    assert (tmp_path / "b" / "a").samefile(tmp_path / "a")


def test_place_follows_symbolic_links(tmp_path):
    (tmp_path / "a").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    place(tmp_path / "link", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a") and not (tmp_path / "b").is_symlink()


def test_place_copies_across_file_systems(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "other device")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_text("x")
    place(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "x" and not (tmp_path / "b").samefile(tmp_path / "a")


def test_list_file_is_found_by_the_split_in_its_name(tmp_path):
    for name in ("train_label.csv", "val_label.csv", "train_val_label.csv", "test-label.csv", "other.csv"):
        (tmp_path / name).touch()
    assert [list_file(tmp_path, split, ".csv").name for split in ("train", "val", "test")] == [
        "train_label.csv",
        "val_label.csv",
        "test-label.csv",
    ]


def test_list_file_must_be_unique(tmp_path):
    with pytest.raises(UsageError, match=r"exactly one val list such as val.txt; found: none"):
        list_file(tmp_path, "val", ".txt")
    (tmp_path / "val.txt").touch()
    (tmp_path / "validation.txt").touch()
    with pytest.raises(UsageError, match=r"found: val.txt, validation.txt"):
        list_file(tmp_path, "val", ".txt")


def test_two_cases_of_one_name(tmp_path):
    cases = [Case("a", "p", "train", tmp_path / "x" / "a"), Case("a", "p", "train", tmp_path / "y" / "a")]
    with pytest.raises(UsageError, match="two cases are called a"):
        unique_by_name(cases)


@pytest.mark.parametrize("name", CONVERTERS)
def test_every_converter_keeps_the_contract(name):
    module = converter(name)
    assert module.HELP and "\n" not in module.HELP
    assert module.NAME.isalnum()
    assert isinstance(module.OPTIONS, tuple)
    assert callable(module.plan)


def test_unknown_converter():
    with pytest.raises(UsageError, match=r"unknown data set 'covid1920'; did you mean covid19_20\?"):
        converter("covid1920")
