"""A model of `MAMLTrainer`, untrained and as small as it gets, and cases for it that lack modalities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from toy_model import stock_checkpoint, tiny_plans

from nnunet_ext.settings.maml import MAMLSettings, modality_channels
from nnunet_ext.trainers.maml import MAMLTrainer

NAMES = ("T1", "T2", "FLAIR")
CT = {"mean": 40.0, "std": 20.0, "percentile_00_5": -30.0, "percentile_99_5": 90.0}


def maml_dataset(names=NAMES):
    return {
        "channel_names": {str(i): name for i, name in enumerate(names)},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }


def maml_plans(num_channels=3, settings=None):
    """Channel 0 is normalised as CT, the others by z-score."""
    plans = tiny_plans()
    configuration = plans["configurations"]["3d_fullres"]
    configuration["normalization_schemes"] = ["CTNormalization"] + ["ZScoreNormalization"] * (num_channels - 1)
    configuration["use_mask_for_norm"] = [False] * num_channels
    plans["foreground_intensity_properties_per_channel"] = {str(i): CT for i in range(num_channels)}
    plans["nnunet_ext"] = {"MAMLTrainer": settings or {}}
    return plans


def write_maml_model(folder: Path, names=NAMES, settings=None, folds=(0, 1)) -> Path:
    """A model folder with random weights per fold."""
    import torch
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    dataset_json = maml_dataset(names)
    plans = maml_plans(len(names), settings)
    channels = modality_channels(MAMLSettings.from_plans(plans), dataset_json)
    plans["nnunet_ext"]["MAMLTrainer"] |= {"modalities": {name: list(group) for name, group in channels.items()}}
    manager = PlansManager(plans)
    for fold in folds:
        (folder / f"fold_{fold}").mkdir(parents=True)
        torch.manual_seed(fold)
        configuration = manager.get_configuration("3d_fullres")
        network = MAMLTrainer.build_network_architecture(manager, configuration, len(names), 2)
        checkpoint = stock_checkpoint(plans, network.state_dict(), "MAMLTrainer")
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset_json))
    return folder


def write_volume(file: Path, seed, shape=(20, 18, 22)):
    """Noise around 40, as the CT channel expects; returns what is in the file, (z, y, x)."""
    volume = np.random.default_rng(seed).normal(40, 20, size=shape).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(volume), str(file))
    return volume


def write_cases(folder: Path, cases) -> Path:
    """``{"a": (0, 2)}`` -> files ``a_0000.nii.gz`` and ``a_0002.nii.gz``; a file depends on its name only."""
    folder.mkdir(exist_ok=True)
    for case, channels in cases.items():
        for channel in channels:
            write_volume(folder / f"{case}_{channel:04d}.nii.gz", [ord(case), channel])
    return folder


class Watched(MAMLTrainer):
    """Remembers what each step was made of."""

    def on_train_start(self) -> None:
        self.seen: list[list[str]] = []
        super().on_train_start()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        losses = super().train_step(batch)
        self.seen.append([name for name in losses if name.startswith("loss/")])
        return losses


Watched.__name__ = "MAMLTrainer"
