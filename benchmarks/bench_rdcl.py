"""Cost of RDCL's network against nnU-Net's own U-Net: the same plan (widths and strides of Table I), batch 2.

    python benchmarks/bench_rdcl.py                    # CPU seconds of one thread, about 5 minutes and 6 GB
    python benchmarks/bench_rdcl.py --device cuda --patch 56 160 192     # seconds, mixed precision

One step is forward, loss and backward: segmentation (Dice and cross-entropy with deep supervision) for both, and the
two relation losses on as many non-target images for RDCL. The two take turns, and the median over turns counts.
Exit code 1 if a goal is missed: step 1.70 times nnU-Net's, prediction 1.35 times, and the general encoder keeps at most
half of what a second encoder of the usual kind keeps for the backward pass.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from typing import Any

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunet_ext.architectures.rdcl import RDCLNet
from nnunet_ext.losses.relation import general_relation_loss, relation_matrix, target_relation_loss
from nnunet_ext.trainers.host_unet import paper_unet
from nnunet_ext.trainers.rdcl import PAPER_3D

BATCH = 2
GOALS = {"step": 1.70, "prediction": 1.35, "activations": 0.50}
DICE = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}


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


def main() -> int:
    """Print the three ratios; the exit code tells whether all goals are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patch", type=int, nargs=3, default=(32, 96, 96), help="voxels [32 96 96]")
    parser.add_argument("--turns", type=int, default=5, help="measurements of each [5]")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device(args.device)
    nnunet = paper_unet(PAPER_3D).to(device)
    rdcl = RDCLNet(paper_unet(PAPER_3D), recompute_general=True).to(device)
    images = torch.randn(BATCH, 1, *args.patch, device=device)
    others = torch.randn(BATCH, 1, *args.patch, device=device)
    loss = segmentation_loss(nnunet, images)
    ratios = {
        "step": ratio("step", lambda: step(rdcl, loss, images, others), lambda: step(nnunet, loss, images), args.turns),
        "prediction": ratio("prediction", lambda: predict(rdcl, images), lambda: predict(nnunet, images), args.turns),
        "activations": activations(rdcl, torch.cat([images, others])),
    }
    missed = [f"{name} {ratios[name]:.2f} (goal {goal})" for name, goal in GOALS.items() if ratios[name] > goal]
    print("missed: " + ", ".join(missed) if missed else "all goals met")
    return int(bool(missed))


def segmentation_loss(network: nn.Module, images: Tensor) -> Callable[[list[Tensor]], Tensor]:
    """nnU-Net's loss against noise."""
    with torch.no_grad():
        targets = [torch.randint(0, 2, (BATCH, 1, *x.shape[2:]), device=images.device) for x in network(images)]
    weights = [1 / 2**level for level in range(len(targets) - 1)] + [0]
    single = DC_and_CE_loss(DICE, {})
    loss = DeepSupervisionWrapper(single, [weight / sum(weights) for weight in weights])
    return lambda logits: loss(logits, targets)


def step(
    network: nn.Module, loss: Callable[[list[Tensor]], Tensor], images: Tensor, others: Tensor | None = None
) -> None:
    """Forward, loss, backward."""
    network.train()
    network.zero_grad(set_to_none=True)
    with mixed_precision(images):
        if others is None:
            total = loss(network(images))
        else:
            logits, features = network(images, non_target=others)
            non_target, general, target = map(relation_matrix, features)
            total = loss(logits) + 0.1 * general_relation_loss(non_target, general)
            total = total + 0.1 * target_relation_loss(general.detach(), target)
    total.backward()


@torch.no_grad()
def predict(network: Any, images: Tensor) -> None:
    """One forward pass as at prediction."""
    network.eval()
    network.decoder.deep_supervision = False
    with mixed_precision(images):
        network(images)
    network.decoder.deep_supervision = True


def mixed_precision(images: Tensor) -> Any:
    """As nnU-Net: on CUDA only."""
    return torch.autocast("cuda") if images.is_cuda else nullcontext()


def activations(rdcl: RDCLNet, images: Tensor) -> float:
    """Bytes that the general encoder keeps for the backward pass, over those of an encoder that keeps all."""
    rdcl.train()
    kept = {}
    for recompute in (True, False):
        rdcl.recompute_general = recompute
        with Storages() as storages:
            features = rdcl._general_features(images)
        kept[recompute] = storages.alive()
        del features
    print(f"activations: {kept[True] / 2**20:.0f} MiB, second encoder {kept[False] / 2**20:.0f} MiB", flush=True)
    return kept[True] / kept[False]


def ratio(name: str, ours: Callable[[], None], peer: Callable[[], None], turns: int) -> float:
    """Median seconds of `ours` over those of `peer`."""
    seconds: dict[str, list[float]] = {"rdcl": [], "nnunet": []}
    for turn in range(turns + 1):
        for who, call in (("rdcl", ours), ("nnunet", peer)):
            start = now()
            call()
            if turn:  # the first one warms up
                seconds[who].append(now() - start)
    a, b = (median(values) for values in seconds.values())
    print(f"{name}: RDCL {a:.3f} s, nnU-Net {b:.3f} s, {a / b:.2f} times", flush=True)
    return a / b


def now() -> float:
    """CPU seconds of this process; with a GPU, seconds once it is idle."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


if __name__ == "__main__":
    sys.exit(main())
