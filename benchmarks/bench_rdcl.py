"""Cost of RDCL's network against nnU-Net's own U-Net: the same plan (widths and strides of Table I), batch 2.

    python benchmarks/bench_rdcl.py                    # CPU seconds of one thread, about 5 minutes and 6 GB
    python benchmarks/bench_rdcl.py --device cuda --patch 56 160 192     # seconds, mixed precision

One step is forward, loss and backward: segmentation (Dice and cross-entropy with deep supervision) for both, and the
two relation losses on as many non-target images for RDCL. The two take turns, and the median over turns counts.
Exit code 1 if a goal is missed: step 1.70 times nnU-Net's, prediction 1.35 times, and the general encoder keeps at most
half of what a second encoder of the usual kind keeps for the backward pass.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from measuring import Storages, arguments, missed, mixed_precision, ratio, segmentation_loss
from torch import Tensor, nn

from nnunet_ext.architectures.cpu_layout import weights_channels_last
from nnunet_ext.architectures.rdcl import RDCLNet
from nnunet_ext.losses.relation import general_relation_loss, relation_matrix, target_relation_loss
from nnunet_ext.trainers.host_unet import paper_unet
from nnunet_ext.trainers.rdcl import PAPER_3D

BATCH = 2
GOALS = {"step": 1.70, "prediction": 1.35, "activations": 0.50}


def main() -> int:
    """Print the three ratios; the exit code tells whether all goals are met."""
    args = arguments(__doc__, (32, 96, 96))
    device = args.device
    nnunet = paper_unet(PAPER_3D).to(device)
    rdcl = RDCLNet(paper_unet(PAPER_3D), recompute_general=True).to(device)
    if device.type == "cpu":
        weights_channels_last(rdcl)  # as the trainer does
    images = torch.randn(BATCH, 1, *args.patch, device=device)
    others = torch.randn(BATCH, 1, *args.patch, device=device)
    with torch.no_grad():
        loss, targets = segmentation_loss(nnunet(images))

    def compared(name: str, run: Callable[..., None], *inputs: Any) -> float:
        ours = "RDCL", lambda: run(rdcl, *inputs)
        peer = "nnU-Net", lambda: run(nnunet, inputs[0])
        return ratio(name, ours, peer, args.turns)

    ratios = {
        "step": compared("step", partial(step, loss=lambda logits: loss(logits, targets)), images, others),
        "prediction": compared("prediction", predict, images),
        "activations": activations(rdcl, torch.cat([images, others])),
    }
    return missed(ratios, GOALS)


def step(
    network: nn.Module, images: Tensor, others: Tensor | None = None, *, loss: Callable[[Sequence[Tensor]], Tensor]
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


if __name__ == "__main__":
    sys.exit(main())
