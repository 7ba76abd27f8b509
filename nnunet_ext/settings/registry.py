"""Which settings belong to which trainer; light enough for the command line."""

from __future__ import annotations

from importlib import import_module

from nnunet_ext.settings.base import Settings
from nnunet_ext.utilities.errors import UsageError

SETTINGS = {
    "UCITrainer": ("nnunet_ext.settings.uci", "UCISettings"),
    "RDCLTrainer": ("nnunet_ext.settings.rdcl", "RDCLSettings"),
    "MAMLTrainer": ("nnunet_ext.settings.maml", "MAMLSettings"),
    "TMCTrainer": ("nnunet_ext.settings.tmc", "TMCSettings"),
    "BaselineTrainer": ("nnunet_ext.settings.baseline", "BaselineSettings"),
}


def settings_class(trainer: str) -> type[Settings]:
    """The settings class of a trainer (``-tr``).

    Raises:
        UsageError: not one of ours.
    """
    if trainer not in SETTINGS:
        raise UsageError(f"-tr {trainer} is not a trainer of nnunet_ext; choose one of {', '.join(SETTINGS)}")
    module, name = SETTINGS[trainer]
    found: type[Settings] = getattr(import_module(module), name)
    return found
