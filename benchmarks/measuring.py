"""What several benchmarks measure with: seconds of two that take turns, bytes that are kept, nnU-Net's loss."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from statistics import median
from typing import Any

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DICE = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}


def arguments(description: str | None, patch: tuple[int, int, int]) -> argparse.Namespace:
    """``--patch``, ``--turns`` and ``--device`` of a benchmark; one thread from here on, and seed 0."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = " ".join(map(str, patch))
    parser.add_argument("--patch", type=int, nargs=3, default=patch, help=f"voxels [{size}]")
    parser.add_argument("--turns", type=int, default=5, help="measurements of each [5]")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu or cuda [cpu]")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return parser.parse_args()


class Storages(TorchDispatchMode):
    """Counts the bytes that were made inside and are still there."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and remember its outputs."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.made[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return result

    def alive(self) -> int:
        """Bytes."""
        return sum(size for reference, size in self.made.values() if not reference.expired())


def segmentation_loss(logits: Sequence[Tensor]) -> tuple[DeepSupervisionWrapper, list[Tensor]]:
    """nnU-Net's Dice and cross-entropy with deep supervision, and noise as its targets, for outputs like `logits`."""
    targets = [torch.randint(0, x.shape[1], (len(x), 1, *x.shape[2:]), device=x.device) for x in logits]
    weights = [1 / 2**level for level in range(len(targets) - 1)] + [0]
    return DeepSupervisionWrapper(DC_and_CE_loss(DICE, {}), [weight / sum(weights) for weight in weights]), targets


def mixed_precision(images: Tensor) -> Any:
    """As nnU-Net: on CUDA only."""
    return torch.autocast("cuda") if images.is_cuda else nullcontext()


def ratio(name: str, ours: tuple[str, Callable[[], None]], peer: tuple[str, Callable[[], None]], turns: int) -> float:
    """Median seconds of `ours` over those of `peer`, which take turns; each is (who, what to run)."""
    seconds: list[list[float]] = [[], []]
    for turn in range(turns + 1):
        for taken, (_, call) in zip(seconds, (ours, peer), strict=True):
            start = now()
            call()
            if turn:  # the first one warms up
                taken.append(now() - start)
    a, b = map(median, seconds)
    print(f"{name}: {ours[0]} {a:.3f} s, {peer[0]} {b:.3f} s, {a / b:.2f} times", flush=True)
    return a / b


def missed(ratios: dict[str, float], goals: dict[str, float]) -> int:
    """Print what is above its goal; the exit code."""
    above = [f"{name} {ratios[name]:.2f} (goal {goal:.2f})" for name, goal in goals.items() if ratios[name] > goal]
    print("missed: " + ", ".join(above) if above else "all goals met")
    return int(bool(above))


def now() -> float:
    """CPU seconds of this process; with a GPU, seconds once it is idle."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
