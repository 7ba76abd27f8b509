"""Worker of the two-process test of `UCINet`; importable, as spawned processes need it."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_ext.architectures.uci import UCINet
from nnunet_ext.architectures.uci_topology import Topology


def make_net() -> UCINet:
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    net = UCINet(
        input_channels=1,
        num_classes=2,
        patch_size=(8, 64, 64),
        topology=Topology.paper(),
        xray_patch_size=(64, 64),
        num_xray_classes=3,
        features_per_stage=(2, 2, 4, 4, 8, 8),
        blocks_per_stage=(1, 1, 1, 2),
        heads_per_stage=(1, 1, 1, 2),
        num_prototypes=6,
        prototype_momentum=0.9,
    )
    torch.random.set_rng_state(state)
    return net


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(2, 1, 8, 64, 64, generator=generator), torch.randn(4, 1, 64, 64, generator=generator))
        for _ in range(3)
    ]


def step(net: nn.Module, ct: Tensor, xray: Tensor) -> None:
    logits, classes = net(ct, xray=xray)
    (sum(x.square().mean() for x in logits) + classes.square().mean()).backward()


def state_of(net: UCINet) -> dict[str, Tensor]:
    gradients = {f"gradient of {name}": p.grad for name, p in net.named_parameters()}
    return {**gradients, **net.banks.state_dict()}


def train_on_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.manual_seed(5 + 100 * rank)
    net = make_net()
    parallel = DistributedDataParallel(net)
    for ct, xray in batches():
        step(parallel, ct[rank : rank + 1], xray[2 * rank : 2 * rank + 2])
    torch.save(state_of(net), Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()
