from __future__ import annotations

import json

import pytest
from report_toy import LESION, make_model

from nnunet_ext.evaluation.report.model import Model, changed_settings, describe_model, describe_run
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.pictures import Picture, write_pictures


def facts_of(folder, progress=None):
    return {fact.name: fact.value for fact in describe_run(Model.open(folder, "0"), progress or {})}


def test_what_was_run_without_a_record(tmp_path):
    facts = facts_of(make_model(tmp_path), {"epoch": [0.0, 1.0], "epoch_seconds": [30.0, 30.0]})
    assert facts["Trained with"] == "nnUNetv2_train Dataset115_COVID 3d_lowres 0 -tr UCITrainer -p nnUNetPlans_small"
    assert facts["Patch size"] == "24 × 96 × 80 voxels (z, y, x)"
    assert facts["Batch size"] == "3"  # of the inheriting configuration
    assert facts["Epochs"] == "2 of 12, not finished: there is no checkpoint_final.pth"
    assert facts["Training time"] == "0 h 01 min, 30.0 s per epoch"
    assert facts["PyTorch"] == "9.9.9"
    assert facts["Classes"] == f"{LESION} (1)"
    assert facts["nnunet_ext"].endswith("(installed where this report was written)")
    assert not {"Started", "Data hash (SHA-256)", "Python"} & facts.keys()


def test_what_was_run_from_its_record(tmp_path):
    folder = make_model(tmp_path)
    run = {
        "command": "nnUNetv2_train 115 3d_lowres 0 -tr UCITrainer -device cuda",
        "started": "2026-11-20T09:31:05",
        "continued": 2,
        "versions": {"python": "3.11.2", "torch": "2.9.0", "nnunetv2": "2.8.1", "nnunet_ext": "0.2"},
        "data_hash": "0123456789abcdef" * 4,
    }
    (folder / "fold_0" / "run.json").write_text(json.dumps(run))
    facts = facts_of(folder)
    assert facts["Trained with"] == run["command"] == describe_model("A", Model.open(folder, "0")).command
    assert facts["Started"] == "2026-11-20 09:31:05, continued 2 times"
    assert [facts[name] for name in ("Python", "PyTorch", "nnU-Net", "nnunet_ext")] == list(run["versions"].values())
    found = {fact.name: fact for fact in describe_run(Model.open(folder, "0"), {})}["Data hash (SHA-256)"]
    assert (found.value, found.full, found.kind) == ("0123456789ab", run["data_hash"], "hash")
    (folder / "fold_0" / "run.json").write_text("{}")
    assert facts_of(folder)["PyTorch"] == "9.9.9"


def test_finished_training(tmp_path):
    folder = make_model(tmp_path)
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"")
    assert facts_of(folder)["Epochs"] == "12, training finished"


def test_settings_of_another_version_are_a_sentence(tmp_path):
    folder = make_model(tmp_path)
    plans = json.loads((folder / "plans.json").read_text())
    plans["nnunet_ext"]["UCITrainer"] = {"from_the_future": 1}
    (folder / "plans.json").write_text(json.dumps(plans))
    assert "no setting 'from_the_future'" in changed_settings(Model.open(folder, "0"))[1]
    plans["nnunet_ext"] = {}
    (folder / "plans.json").write_text(json.dumps(plans))
    assert changed_settings(Model.open(folder, "0")) == ([], "All settings of UCITrainer have their default values.")


def test_pictures_are_embedded_or_explained(tmp_path):
    folder = make_model(tmp_path)
    pictures = folder / "fold_0" / "pictures"
    pictures.mkdir()
    for name in ("usage.png", "gone.svg"):
        (pictures / name).write_bytes(b"?")
    write_pictures(pictures, [Picture(name, "Use", "of prototypes", "bars") for name in ("usage.png", "gone.svg")])
    (pictures / "gone.svg").unlink()
    page = describe_model("A", Model.open(folder, "0"))
    assert [shown.uri for shown in page.pictures] == ["data:image/png;base64,Pw==", ""]
    assert page.pictures[1].note.startswith("Not shown: picture gone.svg does not exist")
    (pictures / "pictures.json").write_text("{}")
    page = describe_model("A", Model.open(folder, "0"))
    assert page.pictures == [] and page.pictures_note.startswith("No pictures: ")


def test_no_model_folder(tmp_path):
    with pytest.raises(UsageError, match="is no model folder"):
        Model.open(tmp_path, "0")
