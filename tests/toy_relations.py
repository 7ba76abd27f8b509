"""A fold of RDCLTrainer as the command ``explain relation`` finds it, without a training."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.utilities.relation_record import FILE_NAME, GENERAL, NON_TARGET, TARGET, write_relations


def matrix(seed: int, channels: int = 6) -> NDArray[np.float32]:
    """(C, C) with rows of norm 1."""
    values = np.random.default_rng(seed).random((channels, channels), np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def make_matrices(seed: int) -> dict[str, NDArray[np.float32]]:
    """The three matrices of an epoch."""
    return {name: matrix(3 * seed + i) for i, name in enumerate((NON_TARGET, GENERAL, TARGET))}


def make_run(
    results: Path,
    kept: tuple[int, ...] = (0, 2, 4),
    epochs: int = 5,
    trainer: str = "RDCLTrainer",
    ablation: str = "none",
    fold: str = "0",
) -> Path:
    """Write a model folder with one fold (a further call adds a fold); returns it."""
    folder = results / "Dataset201_Slices" / f"{trainer}__nnUNetPlans_full__2d"
    (folder / f"fold_{fold}").mkdir(parents=True)
    plans = {"dataset_name": "Dataset201_Slices", "nnunet_ext": {"RDCLTrainer": {"ablation": ablation}}}
    for name, content in (("plans.json", plans), ("dataset.json", {"labels": {"background": 0}})):
        (folder / name).write_text(json.dumps(content))
    write_relations(folder / f"fold_{fold}" / FILE_NAME, {epoch: make_matrices(epoch) for epoch in kept})
    with (folder / f"fold_{fold}" / "progress.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        series = ("relation/general", "relation/target", "relation/general_rank", "relation/weight")
        writer.writerow(["epoch", "lrs", *series])
        for e in range(epochs):
            writer.writerow([e, 0.01, 0.5 - e / 16, 0.25 + e / 16, "nan" if e == 1 else 0.5, e / 40])
    return folder
