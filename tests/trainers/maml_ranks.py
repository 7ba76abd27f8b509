"""Worker of the two-process test of `MAMLTrainer`; importable, as spawned processes need it."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
from toy_maml import Watched

from nnunet_ext.utilities.files import load_json


def train_on_rank(rank: int, preprocessed: str, plans_name: str, folder: str) -> None:
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    plans = load_json(Path(preprocessed) / f"{plans_name}.json")
    plans["nnunet_ext"]["MAMLTrainer"]["modality_dropout"] = 0.5
    dataset_json = load_json(Path(preprocessed) / "dataset.json")
    trainer = Watched(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))
    trainer.run_training()
    torch.save({"seen": trainer.seen, "weights": trainer.bare_network.state_dict()}, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()
