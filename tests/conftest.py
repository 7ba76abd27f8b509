"""One toy data set, planned and preprocessed once per session by nnU-Net's own command line."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from toy import FOLDERS, Workspace, command, write_toy_ct, write_toy_xrays

# A shell that starts the tests in the background lets them ignore Ctrl-C, and so would the commands that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def prepared_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The toy target, preprocessed, linked to the toy X-rays, with plans ``nnUNetPlans_tiny`` for UCITrainer."""
    workspace = Workspace(tmp_path_factory.mktemp("nnunet"))
    folders = {name: str(workspace.root / name) for name in FOLDERS}
    for folder in folders.values():
        Path(folder).mkdir()
    write_toy_ct(workspace.raw)
    write_toy_xrays(workspace.root / "nnUNet_raw" / workspace.xrays)
    low = {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1", "OMP_NUM_THREADS": "1"}
    arguments = ("-d", 998, "-c", "3d_fullres", "--verify_dataset_integrity", "-np", 1, "-npfp", 1)
    command("nnUNetv2_plan_and_preprocess", *arguments, **folders, **low)
    command("nnunet_ext", "link", 998, "--xray", 997, "--quiet", **folders, **low)
    tiny = (
        "num_epochs=2",
        "num_iterations_per_epoch=2",
        "num_val_iterations_per_epoch=1",
        "save_every=1",
        "seed=1",
        "mirror_axes=[]",
    )
    network = ("features_per_stage=[4,4,8,8,16,16]", "heads_per_stage=[1,1,2,2]", "blocks_per_stage=[1,1,1,1]")
    xrays = ("xray_batch_size=3", "xray_patch_size=[32,32]", "num_prototypes=8", "initial_lr=1e-3")
    shape = ("--patch-size", 16, 32, 32, "--batch-size", 2, "--features", 4, 8, 8)
    plan = ("plan", "-d", 998, "--quiet", *shape)
    command("nnunet_ext", *plan, "-tr", "UCITrainer", "--name", "tiny", "--set", *tiny, *network, *xrays, **folders)
    command("nnunet_ext", *plan, "-tr", "BaselineTrainer", "--name", "plain", "--set", *tiny, **folders)
    return workspace


@pytest.fixture
def workspace(prepared_workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of the prepared folders as the current nnU-Net folders."""
    return prepared_workspace.copied(tmp_path / "nnunet", monkeypatch)


@pytest.fixture
def no_nnunet_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell in which no nnU-Net variable is set."""
    for name in (*FOLDERS, "nnUNet_extTrainer"):
        monkeypatch.delenv(name, raising=False)
