"""`plan --gpu-memory`: nnU-Net's own search, with the network that is trained."""

import json
from typing import Any

import pytest
import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from toy import Workspace

from nnunet_ext.cli.main import main
from nnunet_ext.settings.maml import MAMLSettings
from nnunet_ext.trainers.maml import MAMLTrainer
from nnunet_ext.utilities.files import load_json, save_json


def planned(workspace: Workspace, trainer: str, gigabytes: float, *more: str) -> Any:
    arguments = ["plan", "-d", "998", "-tr", trainer, "--gpu-memory", str(gigabytes), "--name", "fit", "--quiet", *more]
    assert main(arguments) == 0
    return load_json(workspace.preprocessed / "nnUNetPlans_fit.json")["configurations"]["3d_fullres"]


@pytest.fixture
def large(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Plans of images that are larger than any patch, in two channels."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")  # the host's number of threads while it plans
    plans = load_json(workspace.preprocessed / "nnUNetPlans.json")
    plans["configurations"]["3d_fullres"] |= {"median_image_size_in_voxels": [160, 200, 200], "spacing": [1, 1, 1]}
    save_json(plans, workspace.preprocessed / "nnUNetPlans.json")
    for folder in (workspace.raw, workspace.preprocessed):
        dataset_json = load_json(folder / "dataset.json") | {"channel_names": {"0": "CT", "1": "PET"}}
        save_json(dataset_json, folder / "dataset.json")
    return workspace


def test_plain_network_gets_what_nnunet_plans(large: Workspace) -> None:
    content = planned(large, "BaselineTrainer", 8)
    planner = ExperimentPlanner(998, gpu_memory_target_in_gb=8)
    expected = planner.get_plans_for_configuration([1, 1, 1], [160, 200, 200], "", 160 * 200 * 200 * 5, {})
    assert content["patch_size"] == [int(size) for size in expected["patch_size"]]
    assert content["batch_size"] == expected["batch_size"]
    assert content["data_identifier"] == "nnUNetPlans_3d_fullres", "the preprocessed data are shared"


def test_several_networks_shrink_the_patch_and_not_the_width(large: Workspace) -> None:
    plain, several = planned(large, "BaselineTrainer", 8), planned(large, "MAMLTrainer", 8)
    patches = [torch.tensor(content["patch_size"]).prod() for content in (plain, several)]
    assert plain["batch_size"] == several["batch_size"] == 2
    assert 2 < patches[0] / patches[1] < 4, "two networks and the attention keep 2.9 times as many values"
    assert several["architecture"]["arch_kwargs"]["features_per_stage"][0] == 32
    plans = load_json(large.preprocessed / "nnUNetPlans_fit.json")
    manager = PlansManager(plans)
    with torch.device("meta"):
        network = MAMLTrainer.build_network_architecture(manager, manager.get_configuration("3d_fullres"), 2, 2, True)
    maps = network.compute_conv_feature_map_size(several["patch_size"])
    assert maps * several["batch_size"] / 2 <= 560e6, "nnU-Net's reference for 8 GB and a batch of two"


def test_settings_count(large: Workspace) -> None:
    kept = planned(large, "MAMLTrainer", 4)
    recomputed = planned(large, "MAMLTrainer", 4, "--set", "checkpoint_attention=true")
    sizes = [torch.tensor(content["patch_size"]).prod() for content in (kept, recomputed)]
    assert sizes[0] <= sizes[1]
    assert MAMLSettings.from_plans(load_json(large.preprocessed / "nnUNetPlans_fit.json")).checkpoint_attention


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu-memory", "8", "--batch-size", "2"], "--gpu-memory decides patch and batch: leave --patch-size"),
        (["--gpu-memory", "0"], "--gpu-memory 0 must be above 0"),
        (["--gpu-memory", "0.001"], "--gpu-memory 0.001 is too little for MAMLTrainer"),
        (["--gpu-memory", "8", "-c", "4d"], "-c 4d is not in the plans"),
    ],
)
def test_what_cannot_be_planned(
    large: Workspace, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["plan", "-d", "998", "-tr", "MAMLTrainer", "--name", "fit", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not (large.preprocessed / "nnUNetPlans_fit.json").exists()


def test_prints_patch_and_batch(large: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-d", "998", "-tr", "MAMLTrainer", "--name", "fit", "--gpu-memory", "11"]) == 0
    content = json.loads((large.preprocessed / "nnUNetPlans_fit.json").read_text())["configurations"]["3d_fullres"]
    assert f"patch {content['patch_size']}, batch {content['batch_size']}" in capsys.readouterr().out
