"""A trained model folder as an object: plans, data set description, network and the weights of each fold."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_ext.nnunet_trainers import nnunet_ext_trainers
from nnunet_ext.utilities.checkpoint import load_checkpoint
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json

Fold = int | str
"""0, 1, ... or ``"all"``."""


@dataclass(frozen=True)
class TrainedModel:
    """What prediction needs; `parameters` holds the weights of each fold, `network` those of the first."""

    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    dataset_json: dict[str, Any]
    trainer_name: str
    network: torch.nn.Module
    parameters: list[dict[str, torch.Tensor]]
    mirroring_axes: tuple[int, ...] | None


def load_trained_model(
    folder: Path, folds: Sequence[Fold] | None, checkpoint_name: str = "checkpoint_final.pth", *, trust: bool = False
) -> TrainedModel:
    """Read ``folder/{plans,dataset}.json`` and ``folder/fold_X/checkpoint_name``, and build the network, deep
    supervision off, strictly with these weights. `folds` None: those that have the checkpoint, but for ``fold_all``.

    Raises:
        UsageError: folder, fold, checkpoint or trainer is missing, or the weights do not fit the plans.
    """
    require_model_folder(folder)
    dataset_json, plans = load_json(folder / "dataset.json"), load_json(folder / "plans.json")
    files = checkpoint_files(folder, folds, checkpoint_name)
    checkpoints = [_nnunet_checkpoint(file, trust) for file in files]
    plans_manager, first = PlansManager(plans), checkpoints[0]
    try:
        configuration_manager = plans_manager.get_configuration(first["init_args"]["configuration"])
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"{folder / 'plans.json'} does not belong to {files[0]}: {error}") from None
    network = build_network(find_trainer(first["trainer_name"]), plans_manager, configuration_manager, dataset_json)
    # In reverse order, so that the network ends up with the first fold's weights.
    for file, checkpoint in reversed(list(zip(files, checkpoints, strict=True))):
        try:
            network.load_state_dict(checkpoint["network_weights"])
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise UsageError(
                f"{file} does not fit the network that {folder / 'plans.json'} describes: {reason}"
            ) from None
    return TrainedModel(
        plans_manager,
        configuration_manager,
        dataset_json,
        first["trainer_name"],
        network,
        [checkpoint["network_weights"] for checkpoint in checkpoints],
        first["inference_allowed_mirroring_axes"],
    )


def require_model_folder(folder: Path) -> None:
    """Raises UsageError that lists the models beside it when `folder` does not exist."""
    if not folder.is_dir():
        beside = _names(folder.parent, "*__*")
        raise UsageError(f"model folder {folder} does not exist; {_hint('trained for this data set', beside)}")


def checkpoint_files(folder: Path, folds: Sequence[Fold] | None, checkpoint_name: str) -> list[Path]:
    """The checkpoint of each fold.

    Raises:
        UsageError: one is missing; the message names all that are, and those that exist.
    """
    if folds is None:
        files = [folder / fold / checkpoint_name for fold in _names(folder, "fold_[0-9]*")]
        files = [file for file in files if file.is_file()]
    else:
        files = [folder / f"fold_{fold}" / checkpoint_name for fold in folds]
    missing = [f"{file.parent.name}/{file.name}" for file in files if not file.is_file()]
    if missing or not files:
        present = [f"{file.parent.name}/{file.name}" for file in sorted(folder.glob("fold_*/checkpoint_*.pth"))]
        raise UsageError(
            f"model folder {folder} has no {', '.join(missing) or checkpoint_name}; {_hint('it has', present)};"
            " choose with -f and -chk, or train the fold first"
        )
    return files


def find_trainer(name: str) -> type[nnUNetTrainer]:
    """The trainer class of a checkpoint: ours, nnU-Net's, or one in a folder of ``nnUNet_extTrainer``.

    Raises:
        UsageError: none of them has it.
    """
    if name in nnunet_ext_trainers.HOMES:
        return cast(type[nnUNetTrainer], getattr(nnunet_ext_trainers, name))
    try:
        return cast(type[nnUNetTrainer], recursive_find_trainer_class_by_name(name))
    except RuntimeError:
        raise UsageError(
            f"trainer {name} of this model is found neither in nnU-Net nor in nnunet_ext nor in nnUNet_extTrainer;"
            ' run: eval "$(nnunet_ext env)", or add the folder of that trainer to nnUNet_extTrainer'
        ) from None


def build_network(
    trainer: type[nnUNetTrainer],
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    dataset_json: dict[str, Any],
) -> torch.nn.Module:
    """The network of a trainer as prediction uses it: one output, deep supervision off."""
    build = trainer.build_network_architecture
    if "plans_manager" in inspect.signature(build).parameters:
        plan: tuple[Any, ...] = (plans_manager, configuration_manager)
    else:  # trainers written for nnU-Net before 2.7
        plan = (
            configuration_manager.network_arch_class_name,
            configuration_manager.network_arch_init_kwargs,
            configuration_manager.network_arch_init_kwargs_req_import,
        )
    network: torch.nn.Module = build(
        *plan,
        determine_num_input_channels(plans_manager, configuration_manager, dataset_json),
        plans_manager.get_label_manager(dataset_json).num_segmentation_heads,
        enable_deep_supervision=False,
    )
    return network


def torch_device(name: str) -> torch.device:
    """``cpu``, ``cuda`` or ``mps``.

    Raises:
        UsageError: this machine, or this torch, has none.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(name, False):
        usable = ", ".join(device for device, usable in available.items() if usable)
        raise UsageError(f"-device {name} is not available on this machine; use one of: {usable}")
    return torch.device(name)


def _nnunet_checkpoint(file: Path, trust: bool) -> dict[str, Any]:
    """What prediction needs of a checkpoint; the rest, twice the size of the weights, is let go."""
    checkpoint = load_checkpoint(file, trust=trust)
    required = ("network_weights", "trainer_name", "init_args")
    missing = [key for key in required if key not in checkpoint]
    if missing:
        raise UsageError(f"{file} is no checkpoint of an nnU-Net trainer: it lacks {', '.join(missing)}")
    return {key: checkpoint.get(key) for key in (*required, "inference_allowed_mirroring_axes")}


def _names(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.glob(pattern) if path.is_dir())


def _hint(what: str, names: list[str]) -> str:
    return f"{what}: {', '.join(names) or 'nothing'}"
