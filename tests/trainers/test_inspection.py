import json

import pytest
import torch
from torch import nn
from toy import Workspace

from nnunet_ext.cli.main import main
from nnunet_ext.trainers.inspection import inspect_network


def test_counts_of_a_convolution() -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.LeakyReLU(), nn.Conv3d(4, 2, 1, bias=False))
        report = inspect_network("Example", network, {"image": {"input": torch.empty(1, 1, 8, 8, 8)}})
    assert report.parameters == 4 * 27 + 4 + 8 and sum(report.parameters_per_part.values()) == report.parameters
    cost = report.forward["image"]
    assert cost.gflop * 1e9 == pytest.approx(2 * 512 * (4 * 27 + 8))
    assert cost.output == [[1, 2, 8, 8, 8]]
    # Kept for the backward pass: the input, the first convolution's output and the activation's, 4 bytes a number.
    assert cost.saved_megabytes * 2**20 == 4 * 512 * (1 + 4 + 4)


def test_paper_network_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "-tr", "UCITrainer", "--paper", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parameters"] == 61_649_464
    assert report["forward"]["ct"]["input"] == {"ct": [1, 1, 32, 256, 256]}
    assert report["forward"]["ct"]["output"][0] == [1, 2, 32, 256, 256]
    assert report["forward"]["xray"]["output"] == [[1, 14]]
    assert main(["inspect", "-tr", "UCITrainer", "--paper", "--classes", "3"]) == 0
    assert "UCITrainer: 61,645,933 parameters" in capsys.readouterr().out


def test_planned_network(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "-tr", "UCITrainer", "-d", "998", "-p", "nnUNetPlans_tiny"]) == 0
    printed = capsys.readouterr().out
    assert "ct 1x1x16x32x32" in printed and "output 1x2\n" in printed
    assert main(["inspect", "-tr", "BaselineTrainer", "-d", "998", "-p", "nnUNetPlans_plain", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters_per_part"].keys() == {
        "encoder.stages",
        "decoder.stages",
        "decoder.transpconvs",
        "decoder.seg_layers",
    }
    assert main(["inspect", "-tr", "UCITrainer"]) == 1
    assert "inspect needs either --paper or -d DATASET" in capsys.readouterr().err


def test_check_says_what_would_be_trained(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", "998", "-tr", "UCITrainer", "-p", "nnUNetPlans_tiny"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "Dataset998_Toy 3d_fullres -tr UCITrainer -p nnUNetPlans_tiny can start" in printed
    assert "linked data: {'xray': [997]}" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-c", "3d_lowres"], "-c 3d_lowres is not in nnUNetPlans_tiny; it has 2d, 3d_fullres"),
        (["-c", "2d"], "UCITrainer cannot train configuration 2d"),
        (["-p", "nnUNetPlansX"], "nnUNetPlansX.json does not exist"),
    ],
)
def test_check_names_what_is_wrong(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["check", "998", "-tr", "UCITrainer", "-p", "nnUNetPlans_tiny", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_check_notices_the_missing_trainer_path(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("nnUNet_extTrainer")
    assert main(["check", "998", "-tr", "UCITrainer"]) == 1
    assert 'run: eval "$(nnunet_ext env)"' in capsys.readouterr().err
