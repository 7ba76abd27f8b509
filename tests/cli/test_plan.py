import json

import pytest
from toy import Workspace

from nnunet_ext.cli.main import main
from nnunet_ext.cli.plan import parse_settings
from nnunet_ext.utilities.errors import UsageError


def test_values_are_json_or_text() -> None:
    parsed = parse_settings(["a=1", "b=[1, 2]", "c=no_kc", "d=true", "e=x=y"])
    assert parse_settings(["a=True", "b=None", "c=null", "d=none"]) == {"a": True, "b": None, "c": None, "d": "none"}
    assert parsed == {"a": 1, "b": [1, 2], "c": "no_kc", "d": True, "e": "x=y"}
    with pytest.raises(UsageError, match="--set lr is not of the form KEY=VALUE"):
        parse_settings(["lr"])


def test_writes_plans_and_says_how_to_train(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "-d", "998", "-tr", "UCITrainer", "--set", "num_prototypes=64", "--name", "k64"]
    assert main(arguments) == 0
    assert "nnUNetv2_train 998 3d_fullres 0 -tr UCITrainer -p nnUNetPlans_k64" in capsys.readouterr().out
    plans = json.loads((workspace.preprocessed / "nnUNetPlans_k64.json").read_text())
    assert plans["nnunet_ext"]["UCITrainer"] == {"num_prototypes": 64}


def test_paper_settings(workspace: Workspace) -> None:
    assert main(["plan", "-d", "998", "-tr", "UCITrainer", "--paper", "--name", "paper", "--quiet"]) == 0
    settings = json.loads((workspace.preprocessed / "nnUNetPlans_paper.json").read_text())["nnunet_ext"]["UCITrainer"]
    assert settings["shared_bank"] is True and settings["topology"] == "paper"
    assert "num_xray_classes" not in settings, "the linked X-rays decide"


def test_a_wrong_setting_writes_nothing(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "-d", "998", "-tr", "UCITrainer", "--set", "prototype_momentum=2", "--name", "wrong"]
    assert main(arguments) == 1
    assert "prototype_momentum=2 is outside the range [0, 1]" in capsys.readouterr().err
    assert not (workspace.preprocessed / "nnUNetPlans_wrong.json").exists()


def test_settings_are_checked_together_with_those_of_the_plans(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["plan", "-d", "998", "-p", "nnUNetPlans_tiny", "-tr", "UCITrainer", "--name", "more"]
    assert main([*arguments, "--set", "heads_per_stage=[1,3,2,2]"]) == 1
    assert "3 heads do not divide the 8 channels" in capsys.readouterr().err


def test_list_describes_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-tr", "UCITrainer", "--list"]) == 0
    listed = capsys.readouterr().out
    assert "num_prototypes = 256" in listed and 'topology = "plans" (plans, paper)' in listed


def test_needs_dataset_and_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-tr", "UCITrainer"]) == 1
    assert "plan needs -d DATASET and --name NAME" in capsys.readouterr().err
