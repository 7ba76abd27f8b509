"""Worker of the two-process test of `PrototypeBank`; importable, as spawned processes need it."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist

from nnunet_ext.architectures.prototypes import PrototypeBank

SHARE_OF_RANK_0 = 5


def make_bank(init: str) -> PrototypeBank:
    return PrototypeBank(24, 4, init=init, momentum=0.9, reseed_after=2)


def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(14, 4, generator=generator) for _ in range(6)]


def update_on_rank(rank: int, init: str, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.manual_seed(5 + 100 * rank)  # ranks draw differently; only rank 0's draw may count
    bank = make_bank(init)
    for tokens in batches():
        bank.update(tokens[:SHARE_OF_RANK_0] if rank == 0 else tokens[SHARE_OF_RANK_0:])
    torch.save(bank.state_dict(), Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()
