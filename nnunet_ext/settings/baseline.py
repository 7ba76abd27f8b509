"""Settings of `BaselineTrainer`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nnunet_ext.settings.base import Settings, choice


@dataclass(frozen=True)
class BaselineSettings(Settings):
    """Defaults are nnU-Net's own training."""

    trainer: ClassVar[str] = "BaselineTrainer"

    optimizer: str = choice("sgd", ("sgd", "adamw"), help="SGD with Nesterov momentum 0.99 (nnU-Net), or AdamW")
