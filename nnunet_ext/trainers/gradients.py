"""Gradients over ranks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average ``p.grad`` of all parameters over all ranks, in place.

    Called once after all loss terms have been back-propagated, so a term that uses only part of the network (or that
    one rank skips) needs no search for unused parameters: a gradient that is absent here but present on another rank
    counts as zero, and one that is absent everywhere stays absent.
    """
    parameters = [p for p in parameters if p.requires_grad]
    present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8, device=parameters[0].device)
    dist.all_reduce(present, op=dist.ReduceOp.MAX)
    used = [p for p, anywhere in zip(parameters, present.tolist(), strict=True) if anywhere]
    gradients: list[Tensor] = []
    for parameter in used:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    if not gradients:
        return
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
