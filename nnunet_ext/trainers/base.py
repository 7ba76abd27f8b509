"""The trainer that all systems share: a training rule is a generator of loss terms."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast

import torch
import torch.distributed as dist
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import Tensor, nn
from tqdm import tqdm

from nnunet_ext.settings.base import PLANS_KEY, Settings
from nnunet_ext.trainers.epoch_log import (
    epoch_summary,
    log_value,
    mean_losses,
    named_series,
    plain,
    plot_named_series,
    write_progress_csv,
)
from nnunet_ext.trainers.gradients import average_gradients
from nnunet_ext.trainers.inspection import Inspectable
from nnunet_ext.trainers.randomness import random_state, restore_random_state, seed_everything
from nnunet_ext.trainers.run_record import write_run_record
from nnunet_ext.utilities.datasets import nnunet_folder
from nnunet_ext.utilities.environment import environment_variable
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path
from nnunet_ext.utilities.pictures import FOLDER_NAME, Picture, write_pictures

SettingsT = TypeVar("SettingsT", bound=Settings)


class Stream(Protocol):
    """A second source of batches beside nnU-Net's loader: infinite, resumable, closed in order."""

    def __next__(self) -> Any: ...

    def state_dict(self) -> dict[str, Any]:
        """The position, in plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the batch that was drawn last when `state` was taken."""

    def close(self) -> None:
        """End background processes; may be called twice."""


class ExtensionTrainer(Inspectable, nnUNetTrainer, Generic[SettingsT]):  # type: ignore[misc]
    """nnU-Net's trainer with settings from the plans, named losses, auxiliary streams and whole checkpoints.

    A system sets `settings_class` and implements `loss_terms`; it may fill `resolve_settings` (what the linked data
    decide), `build_streams`, `epoch_values` (what else to log) and `draw_pictures` (what else to show in the report).
    """

    settings_class: ClassVar[type[Settings]]
    fixed_settings: ClassVar[tuple[str, ...]] = ()
    """Settings that a run keeps for life, as its weights would mean something else."""
    # The host's attributes, whose types it does not state.
    is_ddp: bool
    network: Any
    grad_scaler: Any

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008  (the host's own default)
    ) -> None:
        nnunet_folder("nnUNet_preprocessed")
        nnunet_folder("nnUNet_results")
        self.settings: SettingsT = self.resolve_settings(plans, dataset_json, configuration)
        # The results folder's plans.json then tells every setting, and prediction rebuilds the same network.
        plans.setdefault(PLANS_KEY, {})[self.settings.trainer] = self.settings.to_dict()
        plans.setdefault("continue_training", False)
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.is_ddp:
            self._use_local_device(device)

        for name in (
            "num_epochs",
            "num_iterations_per_epoch",
            "num_val_iterations_per_epoch",
            "initial_lr",
            "save_every",
        ):
            setattr(self, name, getattr(self.settings, name))
        self.weight_decay = self.settings.weight_decay
        self.oversample_foreground_percent = self.settings.oversample_foreground_percent
        self.streams: dict[str, Stream] = {}
        self._resume: dict[str, Any] | None = None
        self._bar: tqdm[Any] | None = None

    # ---- what a system fills in -------------------------------------------------------------------------------

    def loss_terms(self, batch: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, weighted scalar loss) in order. Each is back-propagated before the next is asked for, so its
        graph may go first; do not keep a reference to it."""
        raise NotImplementedError

    @classmethod
    def resolve_settings(cls, plans: dict[str, Any], dataset_json: dict[str, Any], configuration: str) -> Any:  # noqa: ARG003
        """The settings in the plans, completed by what the linked data decide. Raises UsageError before any work."""
        return cls.settings_class.from_plans(plans)

    def build_streams(self, num_workers: int) -> dict[str, Stream]:  # noqa: ARG002
        """The auxiliary streams, which share `num_workers` background processes."""
        return {}

    def epoch_values(self) -> dict[str, float]:
        """More series to log at the end of a training epoch; keys look like ``group/name``."""
        return {}

    def draw_pictures(self, folder: Path) -> list[Picture]:  # noqa: ARG002
        """Draw the system's own pictures into `folder`, for the report."""
        return []

    # ---- one training step for all ----------------------------------------------------------------------------

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Back-propagate every loss term, then unscale, clip and step once: the gradients of the joint loss at the
        peak memory of the largest term."""
        self.optimizer.zero_grad(set_to_none=True)
        losses: dict[str, Tensor] = {}
        terms = self.loss_terms(batch)
        with self.network.no_sync() if self.is_ddp else nullcontext():
            while True:
                with self.autocast():
                    name, loss = next(terms, (None, None))
                if name is None or loss is None:
                    break
                torch.autograd.backward(loss if self.grad_scaler is None else self.grad_scaler.scale(loss))
                losses[name] = loss.detach()
                del loss
        self._step()
        if self._bar is not None:
            self._bar.update()
        values = torch.stack([loss.float() for loss in losses.values()]).cpu().numpy()  # the step's only sync
        return {"loss": values.sum(), **{f"loss/{name}": value for name, value in zip(losses, values, strict=True)}}

    def _step(self) -> None:
        if self.is_ddp:
            average_gradients(self.network.parameters())
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
        self.clip_gradients()
        if self.grad_scaler is not None:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            self.optimizer.step()

    def clip_gradients(self) -> None:
        """Clip the norm of all gradients together."""
        nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_clip)

    def autocast(self) -> Any:
        """Mixed precision on CUDA only, as in nnU-Net."""
        return torch.autocast("cuda") if self.device.type == "cuda" else nullcontext()

    def to_device(self, data: Any) -> Any:
        """A tensor, or a list of them, on the training device."""
        if isinstance(data, list):
            return [self.to_device(element) for element in data]
        return data.to(self.device, non_blocking=True)

    @property
    def bare_network(self) -> nn.Module:
        """The network without the wrappers of DDP and torch.compile."""
        network: nn.Module = self.network.module if self.is_ddp else self.network
        return cast(nn.Module, getattr(network, "_orig_mod", network))

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:  # noqa: N802  (the host's name)
        """As the host, with the mirrored axes of the settings; prediction follows them."""
        rotation, dummy_2d, initial_patch_size, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if self.settings.mirror_axes is not None:
            dimensions = len(self.configuration_manager.patch_size)
            if max(self.settings.mirror_axes, default=0) >= dimensions:
                raise UsageError(
                    f"{self.settings.trainer} setting mirror_axes={list(self.settings.mirror_axes)}: configuration"
                    f" {self.configuration_name} has axes 0 to {dimensions - 1}"
                )
            mirror_axes = self.inference_allowed_mirroring_axes = self.settings.mirror_axes or None
        return rotation, dummy_2d, initial_patch_size, mirror_axes

    # ---- start and end ----------------------------------------------------------------------------------------

    def _use_local_device(self, device: torch.device) -> None:
        """The host takes the global rank for the GPU's index and assumes CUDA."""
        local_rank = int(os.environ.get("LOCAL_RANK", dist.get_rank()))
        self.device = torch.device("cuda", local_rank) if device.type == "cuda" else device
        if self.device.type != "cuda":
            self.grad_scaler = None

    def initialize(self) -> None:
        """As the host, but DDP works on CPU too, and gradients are averaged by `average_gradients`."""
        if not self.is_ddp:
            super().initialize()
            return
        # The reducer of DDP is never used, so there is nothing to gain from compiling the network in its buckets.
        torch._dynamo.config.optimize_ddp = False
        self.is_ddp = False  # the host would wrap with CUDA device ids
        try:
            super().initialize()
        finally:
            self.is_ddp = True
        self._set_batch_size_and_oversample()
        device_ids = None
        if self.device.type == "cuda":
            device_ids = [self.device.index]
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)  # type: ignore[no-untyped-call]
        self.network = nn.parallel.DistributedDataParallel(self.network, device_ids=device_ids, broadcast_buffers=False)
        self.loss = self._build_loss()

    def on_train_start(self) -> None:
        """Seed, start the loaders, then put a resumed run's streams and generators back where they were."""
        if self.settings.seed is not None:
            seed_everything(self.settings.seed + self.local_rank)
        super().on_train_start()
        if self.local_rank == 0:
            write_run_record(
                Path(self.output_folder),
                Path(self.preprocessed_dataset_folder_base),
                Path(self.preprocessed_dataset_folder),
                continued=self._resume is not None,
            )
        self.print_to_log_file(
            f"{self.settings.trainer} settings: {self.settings.to_dict()}", also_print_to_console=False
        )
        if self._resume is not None:
            for name, stream in self.streams.items():
                stream.load_state_dict(self._resume["streams"][name])
            restore_random_state(self._resume["random"][min(self.local_rank, len(self._resume["random"]) - 1)])
            self._resume = None

    def get_dataloaders(self) -> Any:
        """The host's loaders and our streams, inside one budget of processes (``nnUNet_n_proc_DA``)."""
        budget = get_allowed_n_proc_DA()
        share = budget // 4 if budget >= 4 else int(budget >= 2)
        self.streams = self.build_streams(share)
        with environment_variable("nnUNet_n_proc_DA", str(budget - share if self.streams else budget)):
            return super().get_dataloaders()

    def run_training(self) -> None:
        """As the host; loaders and streams are shut down whatever happens, since a live one hangs the exit."""
        threads = torch.get_num_threads()
        if self.device.type == "cpu":
            # The host gives torch every core and the augmenters the same cores again; on two cores a step then took
            # 4 times as long, since OpenMP threads spin while they wait for one that is not running.
            torch.set_num_threads(max(1, threads // 2, threads - get_allowed_n_proc_DA()))
        try:
            super().run_training()
        finally:
            self.shut_down()
            torch.set_num_threads(threads)

    def shut_down(self) -> None:
        """Close the progress bar, the streams and the background augmenters. May be called twice."""
        if self._bar is not None:
            self._bar.close()
        for stream in self.streams.values():
            stream.close()
        for loader in (self.dataloader_train, self.dataloader_val):
            if hasattr(loader, "_finish"):
                loader._finish()

    def common_seed(self) -> int:
        """The setting `seed`, or a random number; the same on all ranks."""
        seed: list[Any] = [self.settings.seed if self.settings.seed is not None else int(torch.randint(2**31, ()))]
        if self.is_ddp:
            dist.broadcast_object_list(seed)
        return int(seed[0])

    # ---- logging ----------------------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        """As the host, with a progress bar on a terminal."""
        super().on_train_epoch_start()
        self._bar = tqdm(
            total=self.num_iterations_per_epoch,
            desc=f"Epoch {self.current_epoch + 1}/{self.num_epochs}",
            disable=True if self.local_rank else None,
            leave=False,
        )

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Log the mean of every named loss, over ranks too."""
        if self._bar is not None:
            self._bar.close()
        super().on_train_epoch_end([{"loss": output["loss"]} for output in train_outputs])
        gathered: list[Any] = [train_outputs]
        if self.is_ddp:
            gathered = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, train_outputs)
        logging = self.logger.local_logger.my_fantastic_logging
        values = dict.fromkeys(named_series(logging), math.nan)  # a term may be absent from this epoch
        values |= mean_losses([output for outputs in gathered for output in outputs]) | self.epoch_values()
        for key, value in values.items():
            log_value(logging, key, value, self.current_epoch)
            for logger in self.logger.loggers:
                logger.log(key, value, self.current_epoch)

    def on_epoch_end(self) -> None:
        """As the host, then the summary line, ``progress.csv``, ``losses.png`` and, with each checkpoint, pictures."""
        super().on_epoch_end()
        if self.local_rank == 0:
            logging = self.logger.local_logger.my_fantastic_logging
            self.print_to_log_file(epoch_summary(logging, self.num_epochs))
            write_progress_csv(logging, Path(self.output_folder) / "progress.csv")
            plot_named_series(logging, Path(self.output_folder) / "losses.png")
            if self.current_epoch % self.save_every == 0 or self.current_epoch == self.num_epochs:
                folder = Path(self.output_folder) / FOLDER_NAME
                if pictures := self.draw_pictures(folder):
                    write_pictures(folder, pictures)

    # ---- checkpoints ------------------------------------------------------------------------------------------

    def save_checkpoint(self, filename: str) -> None:
        """The host's content, plus streams and generators, in plain values that ``weights_only=True`` loads. Atomic:
        a crash or a full disk leaves the previous file as it was.

        Raises:
            UsageError: the file cannot be written.
        """
        if self.disable_checkpointing:
            self.print_to_log_file("No checkpoint written, checkpointing is disabled")
            return
        random_states: list[Any] = [random_state()]
        if self.is_ddp:
            random_states = [None] * dist.get_world_size()
            dist.all_gather_object(random_states, random_state())
        if self.local_rank != 0:
            return
        checkpoint = {
            "network_weights": self.bare_network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler is not None else None,
            "logging": plain(self.logger.get_checkpoint()),
            "_best_ema": plain(self._best_ema_so_far()),
            "current_epoch": self.current_epoch + 1,
            "init_args": self.my_init_kwargs,
            "trainer_name": self.__class__.__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            "nnunet_ext": {
                "streams": {name: stream.state_dict() for name, stream in self.streams.items()},
                "random": random_states,
            },
        }
        try:
            with atomic_path(filename) as temporary:
                torch.save(checkpoint, temporary)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError about positions
            free = shutil.disk_usage(self.output_folder).free / 2**20
            raise UsageError(
                f"{filename} cannot be written ({error}); {free:,.0f} MB are free on its disk. The previous checkpoint"
                " is as it was: make room and continue with --c"
            ) from error

    def _best_ema_so_far(self) -> float | None:
        """The host writes ``checkpoint_latest`` before it looks whether the epoch is the best one."""
        values = [self._best_ema, *self.logger.get_value("ema_fg_dice", None)[-1:]]
        return max((value for value in values if value is not None), default=None)

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """As the host; streams and generators are put back by `on_train_start`, once they exist.

        Raises:
            UsageError: the checkpoint was trained with other settings of the network or of the linked data.
        """
        checkpoint = torch.load(filename_or_checkpoint, map_location="cpu", weights_only=True, mmap=True)
        before = checkpoint["init_args"]["plans"][PLANS_KEY][self.settings.trainer]
        now = self.settings.to_dict()
        changed = {key: (before[key], now[key]) for key in now if key in before and before[key] != now[key]}
        for key in self.fixed_settings:
            if key in changed:
                raise UsageError(
                    f"{filename_or_checkpoint} was trained with {key}={changed[key][0]!r}, but the plans or the linked"
                    f" data now say {changed[key][1]!r}; restore that, or train anew under another plans name"
                )
        if changed:
            self.print_to_log_file(f"settings changed since the checkpoint (before, now): {changed}")
        super().load_checkpoint(filename_or_checkpoint)
        self._resume = checkpoint["nnunet_ext"]
