"""Worker of the two-process test of `average_gradients`; importable, as spawned processes need it."""

import torch
import torch.distributed as dist
from torch import nn

from nnunet_ext.trainers.gradients import average_gradients


def average_on_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    parameters = nn.ParameterList([nn.Parameter(torch.zeros(2)) for _ in range(3)])
    parameters[0].grad = torch.tensor([1.0, 2.0]) * (rank + 1)
    if rank == 1:
        parameters[1].grad = torch.full((2,), 4.0)
    average_gradients(parameters.parameters())
    gradients = [None if p.grad is None else p.grad.tolist() for p in parameters]
    torch.save(gradients, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()
