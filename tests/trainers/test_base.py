import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import Workspace

from nnunet_ext.settings.base import Settings
from nnunet_ext.trainers.base import ExtensionTrainer
from nnunet_ext.trainers.baseline import BaselineTrainer
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json


@dataclass(frozen=True)
class TwoTermSettings(Settings):
    trainer: ClassVar[str] = "TwoTermTrainer"


class TwoTermTrainer(ExtensionTrainer[TwoTermSettings]):
    """Two loss terms that share a network."""

    settings_class = TwoTermSettings
    alive: ClassVar[list[int]] = []

    def loss_terms(self, batch: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
        yield "first", self.network(batch["data"]).square().mean()
        yield "second", 0.5 * self.network(batch["data"] + 1).abs().mean()


def bare_trainer(network: nn.Module) -> TwoTermTrainer:
    """A trainer with just what train_step needs."""
    trainer = TwoTermTrainer.__new__(TwoTermTrainer)
    trainer.network, trainer.settings, trainer.device = network, TwoTermSettings(gradient_clip=1e6), torch.device("cpu")
    trainer.optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    trainer.grad_scaler, trainer.is_ddp, trainer._bar = None, False, None
    return trainer


def test_one_backward_per_term_gives_the_joint_gradients() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 4, 3), nn.InstanceNorm3d(4), nn.LeakyReLU(), nn.Conv3d(4, 2, 1))
    data = torch.randn(2, 1, 6, 6, 6)
    losses = bare_trainer(network).train_step({"data": data})
    separate = [parameter.grad.clone() for parameter in network.parameters()]

    network.zero_grad()
    first, second = network(data).square().mean(), 0.5 * network(data + 1).abs().mean()
    (first + second).backward()
    for mine, parameter in zip(separate, network.parameters(), strict=True):
        assert (mine - parameter.grad).abs().max() <= 1e-6
    assert losses["loss/first"] == pytest.approx(first.item())
    assert losses["loss"] == pytest.approx((first + second).item())


def test_the_first_graph_is_gone_before_the_second_is_built() -> None:
    held: list[int] = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            held.append(1)
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            held.append(-1)
            return gradient

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> Tensor:
            return Watched.apply(x * self.weight)

    bare_trainer(Network()).train_step({"data": torch.ones(3)})
    assert held == [1, -1, 1, -1]


def test_a_term_may_be_absent_from_an_epoch(workspace: Workspace) -> None:
    class Alternating(BaselineTrainer):
        def loss_terms(self, batch: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
            for _, loss in super().loss_terms(batch):
                yield ("odd" if self.current_epoch % 2 else "even"), loss

    Alternating.__name__ = "BaselineTrainer"
    trainer = make_baseline(workspace, Alternating, num_epochs=3)
    trainer.run_training()
    logged = trainer.logger.local_logger.my_fantastic_logging
    assert np.isnan(logged["loss/even"]).tolist() == [False, True, False]
    assert np.isnan(logged["loss/odd"]).tolist() == [True, False, True]


def test_gradients_are_clipped_together() -> None:
    network = nn.Linear(3, 1)
    trainer = bare_trainer(network)
    trainer.settings = TwoTermSettings(gradient_clip=0.1)
    trainer.train_step({"data": 100 * torch.ones(2, 3)})
    norm = torch.cat([parameter.grad.flatten() for parameter in network.parameters()]).norm()
    assert norm == pytest.approx(0.1, rel=1e-3)


def make_baseline(
    workspace: Workspace, trainer: type[BaselineTrainer] = BaselineTrainer, **settings: Any
) -> BaselineTrainer:
    plans = load_json(workspace.preprocessed / "nnUNetPlans_plain.json")
    plans["nnunet_ext"]["BaselineTrainer"].update(settings)
    dataset_json = load_json(workspace.preprocessed / "dataset.json")
    return trainer(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_baseline_trains_as_long_as_its_settings_say(workspace: Workspace, optimizer: str) -> None:
    trainer = make_baseline(workspace, num_epochs=1, optimizer=optimizer)
    trainer.run_training()
    assert type(trainer.optimizer).__name__.lower() == optimizer
    assert len(trainer.logger.local_logger.my_fantastic_logging["loss/segmentation"]) == 1
    assert (Path(trainer.output_folder) / "checkpoint_final.pth").exists()


def test_a_full_disk_leaves_the_last_checkpoint(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_baseline(workspace, num_epochs=1)
    trainer.run_training()
    file = Path(trainer.output_folder) / "checkpoint_final.pth"
    before = file.read_bytes()

    def fill_up(_: Any, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(torch, "save", fill_up)
    with pytest.raises(UsageError, match="cannot be written .*No space left.*MB are free.*continue with --c"):
        trainer.save_checkpoint(str(file))
    assert file.read_bytes() == before
    assert not [path for path in file.parent.iterdir() if path.name.startswith(".")]


def test_background_workers_share_the_budget_and_are_shut_down(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    trainer = make_baseline(workspace, num_epochs=1, num_iterations_per_epoch=1)
    trainer.run_training()
    assert os.environ["nnUNet_n_proc_DA"] == "2"
    assert not trainer.dataloader_train._processes and not trainer.dataloader_val._processes
    trainer.shut_down()


def test_seed_makes_two_runs_equal(workspace: Workspace) -> None:
    first, second = (make_baseline(workspace, num_epochs=1, seed=7) for _ in range(2))
    for trainer in (first, second):
        trainer.run_training()
    losses = [t.logger.local_logger.my_fantastic_logging["train_losses"] for t in (first, second)]
    # The weights are drawn before training starts; the seed covers them too.
    assert np.array_equal(*losses)


def test_inspect_paper_needs_a_paper() -> None:
    with pytest.raises(UsageError, match="BaselineTrainer follows no paper's network"):
        BaselineTrainer.inspect_paper()


@pytest.mark.parametrize(("axes", "expected"), [(None, (0, 1, 2)), ([2], (2,)), ([], None)])
def test_mirrored_axes_are_those_of_prediction(workspace: Workspace, axes: Any, expected: Any) -> None:
    trainer = make_baseline(workspace, mirror_axes=axes)
    *_, mirrored = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert mirrored == expected == trainer.inference_allowed_mirroring_axes


def test_a_mirrored_axis_that_the_configuration_lacks(workspace: Workspace) -> None:
    trainer = make_baseline(workspace, mirror_axes=[2])
    trainer.configuration_manager.configuration["patch_size"] = [32, 32]
    with pytest.raises(UsageError, match=r"mirror_axes=\[2\]: configuration 3d_fullres has axes 0 to 1"):
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
