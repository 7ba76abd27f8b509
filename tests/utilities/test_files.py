import hashlib
from pathlib import Path

import pytest

from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path, load_json, save_json, sha256


def test_success_replaces_and_keeps_the_ending(tmp_path: Path) -> None:
    target = tmp_path / "new" / "case.nii.gz"
    with atomic_path(target) as temporary:
        assert temporary.name.endswith(".nii.gz") and temporary.parent == target.parent
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_failure_leaves_the_old_file_and_no_rest(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "checkpoint.pth"
    target.write_text("old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("ha")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_json_round_trip_and_errors(tmp_path: Path) -> None:
    save_json({"a": [1]}, tmp_path / "a.json")
    assert load_json(tmp_path / "a.json") == {"a": [1]}
    with pytest.raises(UsageError, match="missing.json does not exist"):
        load_json(tmp_path / "missing.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UsageError, match="bad.json is not valid JSON"):
        load_json(tmp_path / "bad.json")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc" * 1_000_000)
    assert sha256(tmp_path / "f") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
