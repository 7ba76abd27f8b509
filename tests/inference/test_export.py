import pytest

from nnunet_ext.inference import export
from nnunet_ext.inference.export import export_whole_files, no_partial_files_left, partial_folder


def host_export(*contents, fails=False):
    """Stands for the host's export: writes files of the given endings, then may fail."""

    def run(_logits, _properties, _configuration, _plans, _dataset_json, truncated, _save_probabilities):
        for ending in contents:
            export.Path(truncated + ending).write_text("new")
        if fails:
            raise OSError("no space left on device")

    return run


def test_files_are_moved_into_place_segmentation_last(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "export_prediction_from_logits", host_export(".nii.gz", ".npz", ".pkl"))
    order = []
    replace = export.Path.replace
    monkeypatch.setattr(export.Path, "replace", lambda self, to: order.append(to.name) or replace(self, to))
    export_whole_files(None, {}, None, None, {"file_ending": ".nii.gz"}, str(tmp_path / "out" / "a"), True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.nii.gz", "a.npz", "a.pkl"]
    assert order[-1] == "a.nii.gz"


def test_a_failed_export_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "a.nii.gz").write_text("old")
    partial_folder(str(tmp_path / "a")).mkdir()  # of a killed run
    monkeypatch.setattr(export, "export_prediction_from_logits", host_export(".nii.gz", fails=True))
    with pytest.raises(OSError, match="no space"):
        export_whole_files(None, {}, None, None, {"file_ending": ".nii.gz"}, str(tmp_path / "a"), False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]
    assert (tmp_path / "a.nii.gz").read_text() == "old"


def test_partial_folders_of_killed_workers_go(tmp_path):
    outputs = []
    with pytest.raises(KeyboardInterrupt), no_partial_files_left(outputs):
        outputs.append(str(tmp_path / "a"))
        partial_folder(outputs[0]).mkdir()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
