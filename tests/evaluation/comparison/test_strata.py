from __future__ import annotations

import pytest

from nnunet_ext.evaluation.comparison.strata import group_values, read_strata
from nnunet_ext.utilities.errors import UsageError


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text("\ufeffcase,size,sex\na,0.2,F\nb,1.5,M\nc,9,\nd,3,F\n", encoding="utf-8")
    return path


def test_text_as_it_is(table):
    assert read_strata(table, "sex", ["d", "b", "a"]) == {"d": "F", "a": "F", "b": "M"}
    assert list(read_strata(table, "sex", ["b", "a"])) == ["a", "b"]


def test_numbers_are_cut_at_quantiles_in_order():
    sizes = dict(zip("abcdef", ["4", "0.2", "20", "1.5", "10", "3"], strict=True))
    assert group_values(sizes, "size") == {
        "b": "size 0.2-1.5", "d": "size 0.2-1.5",
        "a": "size 3-4", "f": "size 3-4",
        "c": "size 10-20", "e": "size 10-20",
    }  # fmt: skip
    assert list(dict.fromkeys(group_values(sizes, "size").values())) == ["size 0.2-1.5", "size 3-4", "size 10-20"]
    assert set(group_values(sizes, "size", bins=2).values()) == {"size 0.2-3", "size 4-20"}


def test_few_numbers_are_strata_themselves():
    assert group_values({"a": "2", "b": "1", "c": "2.0"}, "grade") == {"b": "grade 1", "a": "grade 2", "c": "grade 2"}


def test_equal_numbers_stay_together_and_negative_ranges_can_be_read():
    values = {str(i): "0" for i in range(8)} | {"x": "1", "y": "2", "z": "3"}
    assert set(group_values(values, "n").values()) == {"n 0", "n 1-3"}
    assert set(group_values({"a": "-3", "b": "-2", "c": "1", "d": "2"}, "t", bins=2).values()) == {
        "t -3 to -2",
        "t 1-2",
    }


@pytest.mark.parametrize(
    "column, cases, message",
    [
        ("size", ["a", "e", "f"], "no line for the cases e, f; its cases are a, b, c, d"),
        ("sex", ["a", "c"], "no value of 'sex' for the cases c"),
        ("age", ["a"], "no column 'age'; it has case, size, sex"),
    ],
)
def test_what_is_missing_is_named(table, column, cases, message):
    with pytest.raises(UsageError, match=message):
        read_strata(table, column, cases)


def test_other_faults_are_named(table):
    with pytest.raises(UsageError, match="does not exist"):
        read_strata(table.with_name("none.csv"), "size", ["a"])
    with pytest.raises(UsageError, match="--bins is 1"):
        read_strata(table, "size", ["a"], bins=1)
    table.write_text("case,size\na,1\na,2\n")
    with pytest.raises(UsageError, match="more than one line for case a"):
        read_strata(table, "size", ["a"])


def test_large_numbers_keep_their_digits():
    sites = group_values({"a": "1000001", "b": "1000002"}, "site")
    assert sites == {"a": "site 1000001", "b": "site 1000002"}
    dates = group_values({str(i): f"202401{i:02d}" for i in range(1, 13)}, "date")
    assert list(dict.fromkeys(dates.values())) == [
        "date 20240101-20240104",
        "date 20240105-20240108",
        "date 20240109-20240112",
    ]


def test_spreadsheet_habits(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("case,contrast\na,none\nb,iv\n,\n,\n")
    assert read_strata(path, "contrast", ["a", "b"]) == {"b": "iv", "a": "none"}
    path.write_text("case,contrast\na,none\n,iv\n")
    with pytest.raises(UsageError, match="has a line without a case: , iv"):
        read_strata(path, "contrast", ["a"])
    path.write_bytes("case,site\na,M\u00fcnchen\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"s.csv cannot be read as CSV in UTF-8 .*; save it as such"):
        read_strata(path, "site", ["a"])
