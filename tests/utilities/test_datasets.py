import json
from pathlib import Path

import pytest

from nnunet_ext.utilities.datasets import dataset_name, nnunet_folder, preprocessed_folder, raw_folder, write_relation
from nnunet_ext.utilities.errors import UsageError


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "nnUNet_raw" / "Dataset115_COVID").mkdir()
    return tmp_path


def test_lookup_by_id_and_name(folders: Path) -> None:
    assert dataset_name(115) == dataset_name("115") == dataset_name("Dataset115_COVID") == "Dataset115_COVID"
    assert raw_folder("115") == folders / "nnUNet_raw" / "Dataset115_COVID"


def test_errors_name_the_fix(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="there is no data set 9 in nnUNet_raw="):
        dataset_name(9)
    with pytest.raises(UsageError, match="run: nnUNetv2_plan_and_preprocess -d 115"):
        preprocessed_folder(115)
    monkeypatch.setenv("nnUNet_raw", str(folders / "nowhere"))
    with pytest.raises(UsageError, match="mkdir -p"):
        nnunet_folder("nnUNet_raw")
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(UsageError, match="nnUNet_raw is not set; run: export nnUNet_raw="):
        nnunet_folder("nnUNet_raw")


def test_relation_is_written_to_both_copies_and_keeps_the_rest(folders: Path) -> None:
    with pytest.raises(UsageError, match=r"no dataset\.json"):
        write_relation(115, "xray", [700])
    files = []
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        folder = folders / name / "Dataset115_COVID"
        folder.mkdir(exist_ok=True)
        files.append(folder / "dataset.json")
        files[-1].write_text(json.dumps({"labels": {"background": 0}, "nnunet_ext": {"unlabeled": [702]}}))
    assert write_relation(115, "xray", [700]) == files
    for file in files:
        content = json.loads(file.read_text())
        assert content == {"labels": {"background": 0}, "nnunet_ext": {"unlabeled": [702], "xray": [700]}}
