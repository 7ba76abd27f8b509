import json
import sys
from datetime import datetime
from pathlib import Path

import pytest

from nnunet_ext import __version__
from nnunet_ext.trainers.run_record import RECORD_NAME, data_hash, write_run_record


@pytest.fixture
def preprocessed(tmp_path: Path) -> Path:
    folder = tmp_path / "Dataset001_A"
    (folder / "nnUNetPlans_3d_fullres").mkdir(parents=True)
    (folder / "nnUNetPlans_3d_fullres" / "a.b2nd").write_bytes(b"12345")
    for name in ("dataset.json", "dataset_fingerprint.json", "splits_final.json"):
        (folder / name).write_text("{}")
    return folder


def test_the_record_of_a_run(preprocessed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/env/bin/nnUNetv2_train", "1", "3d_fullres", "0", "-p", "a b"])
    write_run_record(tmp_path, preprocessed, preprocessed / "nnUNetPlans_3d_fullres", continued=False)
    record = json.loads((tmp_path / RECORD_NAME).read_text())
    assert record["command"] == "nnUNetv2_train 1 3d_fullres 0 -p 'a b'"
    assert record["versions"]["nnunet_ext"] == __version__ and set(record["versions"]) >= {
        "python",
        "torch",
        "nnunetv2",
    }
    assert record["continued"] == 0 and len(record["data_hash"]) == 64
    assert abs((datetime.now() - datetime.fromisoformat(record["started"])).total_seconds()) < 60

    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", "1", "3d_fullres", "0", "--c"])
    write_run_record(tmp_path, preprocessed, preprocessed / "nnUNetPlans_3d_fullres", continued=True)
    continued = json.loads((tmp_path / RECORD_NAME).read_text())
    assert continued["started"] == record["started"] and continued["continued"] == 1
    assert continued["command"].endswith("--c") and continued["data_hash"] == record["data_hash"]


def test_a_new_run_in_an_old_folder_starts_anew(preprocessed: Path, tmp_path: Path) -> None:
    old = {"started": "2020-01-01T00:00:00", "continued": 3}
    (tmp_path / RECORD_NAME).write_text(json.dumps(old))
    write_run_record(tmp_path, preprocessed, preprocessed / "nnUNetPlans_3d_fullres", continued=False)
    record = json.loads((tmp_path / RECORD_NAME).read_text())
    assert record["continued"] == 0 and record["started"] > "2026"


@pytest.mark.parametrize("content", [None, "", "{}", "[]"])
def test_a_lost_record_does_not_stop_a_continued_run(preprocessed: Path, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / RECORD_NAME).write_text(content)
    write_run_record(tmp_path, preprocessed, preprocessed / "nnUNetPlans_3d_fullres", continued=True)
    record = json.loads((tmp_path / RECORD_NAME).read_text())
    assert (record["started"], record["continued"]) == (None, 1)


@pytest.mark.parametrize("change", ["dataset.json", "dataset_fingerprint.json", "splits_final.json", "case", "name"])
def test_the_hash_tells_other_data(preprocessed: Path, change: str) -> None:
    data = preprocessed / "nnUNetPlans_3d_fullres"
    before = data_hash(preprocessed, data)
    assert before == data_hash(preprocessed, data)
    if change == "case":
        (data / "a.b2nd").write_bytes(b"123456")
    elif change == "name":
        (data / "a.b2nd").rename(data / "b.b2nd")
    else:
        (preprocessed / change).write_text('{"x": 1}')
    assert data_hash(preprocessed, data) != before


def test_a_data_set_without_splits_has_a_hash(preprocessed: Path) -> None:
    (preprocessed / "splits_final.json").unlink()
    assert len(data_hash(preprocessed, preprocessed / "nnUNetPlans_3d_fullres")) == 64
