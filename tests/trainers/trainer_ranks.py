"""Worker of the two-process test of `UCITrainer`; importable, as spawned processes need it."""

import os
from pathlib import Path

import torch
import torch.distributed as dist

from nnunet_ext.trainers.uci import UCITrainer
from nnunet_ext.utilities.files import load_json


def train_on_rank(rank: int, preprocessed: str, folder: str) -> None:
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    plans = load_json(Path(preprocessed) / "nnUNetPlans_tiny.json")
    dataset_json = load_json(Path(preprocessed) / "dataset.json")
    trainer = UCITrainer(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))
    trainer.run_training()
    torch.save(trainer.bare_network.state_dict(), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()
