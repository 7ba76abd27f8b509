"""From the name after ``-tr`` to the class."""

from __future__ import annotations

from importlib import import_module

from nnunet_ext.nnunet_trainers.nnunet_ext_trainers import HOMES
from nnunet_ext.trainers.base import ExtensionTrainer


def trainer_class(name: str) -> type[ExtensionTrainer]:  # type: ignore[type-arg]
    """The trainer class of that name; the table is the shim's, so both always agree."""
    found: type[ExtensionTrainer] = getattr(import_module(HOMES[name]), name)  # type: ignore[type-arg]
    return found
