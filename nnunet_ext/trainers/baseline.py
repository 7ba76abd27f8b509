"""Plain nnU-Net with settings in the plans: the opponent of every comparison at the same budget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import Tensor

from nnunet_ext.settings.baseline import BaselineSettings
from nnunet_ext.trainers.base import ExtensionTrainer


class BaselineTrainer(ExtensionTrainer[BaselineSettings]):
    """nnU-Net's network and loss; length, learning rate and optimiser are settings, so that a short run is
    comparable with a short run of one of the systems."""

    settings_class = BaselineSettings

    def loss_terms(self, batch: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """nnU-Net's segmentation loss, alone."""
        yield "segmentation", self.loss(self.network(self.to_device(batch["data"])), self.to_device(batch["target"]))

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """The host's SGD, or AdamW with the same decay of the learning rate."""
        if self.settings.optimizer == "sgd":
            optimizer, scheduler = super().configure_optimizers()
            return optimizer, scheduler
        optimizer = torch.optim.AdamW(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)
