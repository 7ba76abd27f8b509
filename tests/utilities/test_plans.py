import json

import pytest
from toy import Workspace

from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.plans import PlanChanges, changed_plans, load_plans, write_plans


def test_settings_and_name_are_written_and_the_data_are_shared(workspace: Workspace) -> None:
    path = write_plans(998, "nnUNetPlans", "k128", "UCITrainer", PlanChanges("3d_fullres"), {"num_prototypes": 128})
    plans = json.loads(path.read_text())
    original = load_plans(998, "nnUNetPlans")
    assert path == workspace.preprocessed / "nnUNetPlans_k128.json"
    assert plans["plans_name"] == "nnUNetPlans_k128"
    assert plans["nnunet_ext"] == {"UCITrainer": {"num_prototypes": 128}}
    assert plans["configurations"] == original["configurations"]


def test_a_new_patch_plans_the_topology_as_nnunet_does(workspace: Workspace) -> None:
    plans = load_plans(998, "nnUNetPlans")
    changed = changed_plans(
        plans, PlanChanges("3d_fullres", patch_size=[15, 32, 30], batch_size=3, features_per_stage=[4, 8, 8])
    )
    configuration = changed["configurations"]["3d_fullres"]
    network = configuration["architecture"]["arch_kwargs"]
    assert configuration["batch_size"] == 3
    assert (
        network["n_stages"]
        == 3
        == len(network["strides"])
        == len(network["kernel_sizes"])
        == len(network["n_conv_per_stage"])
    )
    assert len(network["n_conv_per_stage_decoder"]) == 2 and network["features_per_stage"] == [4, 8, 8]
    assert all(size % 2 == 0 for size in configuration["patch_size"])
    assert plans["configurations"]["3d_fullres"]["batch_size"] != 3, "the original is untouched"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (PlanChanges("3d_lowres"), "-c 3d_lowres is not in the plans; they have 2d"),
        (PlanChanges("3d_fullres", patch_size=[8, 8]), r"--patch-size \[8, 8\] must have 3 numbers"),
        (PlanChanges("3d_fullres", features_per_stage=[4, 8]), r"--features \[4, 8\] leave 2 stages"),
        (PlanChanges("3d_fullres", batch_size=0), "--batch-size 0 must be at least 1"),
    ],
)
def test_impossible_changes(workspace: Workspace, changes: PlanChanges, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        changed_plans(load_plans(998, "nnUNetPlans"), changes)


def test_unfit_names_and_missing_plans(workspace: Workspace) -> None:
    for name in ("a/b", "a__b", ""):
        with pytest.raises(UsageError, match="--name"):
            write_plans(998, "nnUNetPlans", name, "UCITrainer", PlanChanges("3d_fullres"), {})
    with pytest.raises(UsageError, match=r"nnUNetPlansX.json does not exist \(plans here: nnUNetPlans"):
        load_plans(998, "nnUNetPlansX")
