"""X-ray classification with a trained UCI model: probabilities per image."""

from __future__ import annotations

import copy
import csv
import inspect
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from nnunet_ext.data.xray_augmentation import whole_views
from nnunet_ext.data.xray_cache import DEFAULT_SIDE
from nnunet_ext.data.xray_image import read_xray
from nnunet_ext.inference.trained_model import Fold, load_trained_model, require_model_folder
from nnunet_ext.settings.uci import UCISettings
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path, load_json

FILLED_IN = ("num_xray_classes", "xray_classes", "xray_task", "xray_mean", "xray_std")


def load_classifier(
    model_folder: Path, folds: Sequence[Fold] | None, checkpoint_name: str, *, trust: bool = False
) -> tuple[list[nn.Module], UCISettings]:
    """The network of each fold, with its weights, and the settings that say what it classifies.

    Raises:
        UsageError: the model cannot be loaded or has no X-ray head.
    """
    require_model_folder(model_folder)
    settings = xray_settings(load_json(model_folder / "plans.json"), model_folder)
    model = load_trained_model(model_folder, folds, checkpoint_name, trust=trust)
    if "xray" not in inspect.signature(model.network.forward).parameters:
        raise UsageError(
            f"{model_folder}: the network of {model.trainer_name} has no X-ray head; use a UCITrainer model"
        )
    networks = []
    for parameters in model.parameters:
        network = copy.deepcopy(model.network)
        network.load_state_dict(parameters)
        networks.append(network)
    return networks, settings


def xray_settings(plans: dict[str, Any], source: Path) -> UCISettings:
    """The settings in the plans of a trained model; raises UsageError unless they describe an X-ray head."""
    settings = UCISettings.from_plans(plans)
    unknown = [name for name in FILLED_IN if getattr(settings, name) is None]
    if unknown or not settings.uses_xrays:
        reason = "it was trained with ablation=ct_only" if not settings.uses_xrays else f"{', '.join(unknown)} not set"
        raise UsageError(
            f"{source} has no X-ray head ({reason} in its plans.json); use a model that UCITrainer trained"
        )
    return settings


def classify_images(
    networks: Sequence[nn.Module],
    files: Sequence[Path],
    settings: UCISettings,
    *,
    device: torch.device,
    batch_size: int = 32,
    quiet: bool = False,
) -> NDArray[np.float32]:
    """Probabilities (N, C) of N images, averaged over `networks`: a sigmoid per class, or a softmax over them if the
    task is multiclass. (0, C) for no images.

    Images are decoded by threads while the networks work on the batch before.

    Raises:
        UsageError: images that cannot be read; names every one of them.
    """
    for network in networks:
        network.to(device).eval()
    probabilities, faults = [], []
    total = len(files)
    with tqdm(total=total, desc="Classifying", unit="image", disable=True if quiet else None) as bar:
        for batch in _decoded_batches(files, settings, batch_size):
            faults += [item for item in batch if isinstance(item, str)]
            if not faults:  # after the first fault the rest is decoded only to name all faults at once
                images = np.stack([item for item in batch if not isinstance(item, str)])
                probabilities.append(_batch_probabilities(networks, images, settings, device))
            bar.update(len(batch))
    if faults:
        raise UsageError(f"{len(faults)} of {total} images cannot be read:\n" + "\n".join(faults))
    empty = np.empty((0, settings.num_xray_classes or 0), dtype=np.float32)
    return np.concatenate([empty, *probabilities])


@torch.inference_mode()
def _batch_probabilities(
    networks: Sequence[nn.Module], images: NDArray[np.uint8], settings: UCISettings, device: torch.device
) -> NDArray[np.float32]:
    """(B, S, S) grey values -> (B, C)."""
    assert settings.xray_mean is not None and settings.xray_std is not None
    views = whole_views(images, settings.xray_patch_size, settings.xray_mean, settings.xray_std).to(device)
    total = torch.zeros(len(views), settings.num_xray_classes or 0, device=device)
    for network in networks:
        logits = network(xray=views).float()  # B, C
        total += logits.softmax(1) if settings.xray_task == "multiclass" else logits.sigmoid()
    mean: NDArray[np.float32] = (total / len(networks)).cpu().numpy()
    return mean


def _decoded_batches(
    files: Sequence[Path], settings: UCISettings, batch_size: int
) -> Iterator[list[NDArray[np.uint8] | str]]:
    """Images (S, S), or why one cannot be read; one batch is decoded ahead."""
    read = partial(_read_or_fault, side=max(DEFAULT_SIDE, *settings.xray_patch_size))  # as the cache of training
    with ThreadPoolExecutor() as pool:
        ahead: Iterator[NDArray[np.uint8] | str] = iter(())
        for start in range(0, len(files), batch_size):
            current, ahead = ahead, pool.map(read, files[start : start + batch_size])
            if start:
                yield list(current)
        if files:
            yield list(ahead)


def _read_or_fault(file: Path, side: int) -> NDArray[np.uint8] | str:
    try:
        return read_xray(file, side)
    except UsageError as error:
        return str(error)


def write_probabilities(path: Path, names: Sequence[str], classes: Sequence[str], values: NDArray[np.floating]) -> None:
    """A CSV with the columns ``image`` and one per class, rows in the order given; atomically."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", *classes])
        writer.writerows([name, *(f"{value:.6g}" for value in row)] for name, row in zip(names, values, strict=True))
