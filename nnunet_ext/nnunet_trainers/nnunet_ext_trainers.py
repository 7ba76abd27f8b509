"""The one module that nnU-Net's trainer search finds when ``nnUNet_extTrainer`` points to this folder.

nnU-Net asks every module of the folder for the class by ``hasattr`` and afterwards drops the module from
``sys.modules``. The classes are therefore handed out lazily from their home modules: they stay importable and
picklable, and an unmet optional import of one system cannot hide another.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

HOMES = {
    "BaselineTrainer": "nnunet_ext.trainers.baseline",
    "MAMLTrainer": "nnunet_ext.trainers.maml",
    "RDCLTrainer": "nnunet_ext.trainers.rdcl",
    "TMCTrainer": "nnunet_ext.trainers.tmc",
    "UCITrainer": "nnunet_ext.trainers.uci",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(HOMES)
