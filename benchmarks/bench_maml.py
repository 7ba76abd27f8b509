"""Cost of MAML's network against nnU-Net's own U-Nets: the paper's plan, two modalities.

    python benchmarks/bench_maml.py                    # CPU seconds of one thread, about 8 minutes and 8 GB
    python benchmarks/bench_maml.py --device cuda --patch 128 128 128    # seconds, mixed precision

One step, batch 2, is forward, loss (Dice and cross-entropy with deep supervision) and backward: of one network per
modality, one after the other, as the peer; of MAML with all its losses. Prediction, batch 1, is of one modality, by
MAML where the others are absent and by an nnU-Net with one channel. The two take turns; the median over turns counts.
Exit code 1 if a goal is missed: step 1.55 times the peer's (attention is a third of the FLOP), prediction 1.1 times,
and attention keeps at most 0.70 of what its naive form keeps for the backward pass, 0.1 with `checkpoint_attention`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from measuring import Storages, arguments, missed, mixed_precision, ratio, segmentation_loss
from torch import Tensor, nn

from nnunet_ext.architectures.cpu_layout import weights_channels_last
from nnunet_ext.architectures.maml import MAMLNet
from nnunet_ext.architectures.modality_attention import ModalityAttention
from nnunet_ext.losses.maml import MAMLLoss
from nnunet_ext.trainers.host_unet import paper_unet
from nnunet_ext.trainers.maml import PAPER

MODALITIES, BATCH = 2, 2
GOALS = {"step": 1.55, "prediction": 1.10, "activations": 0.70, "activations, checkpointed": 0.10}


def main() -> int:
    """Print the four ratios; the exit code tells whether all goals are met."""
    args = arguments(__doc__, (64, 64, 64))
    device = args.device
    unets = [paper_unet(PAPER).to(device) for _ in range(MODALITIES)]
    streams = [paper_unet(PAPER) for _ in range(MODALITIES)]
    maml = MAMLNet(streams, [[index] for index in range(MODALITIES)]).to(device)
    if device.type == "cpu":
        weights_channels_last(maml)  # as the trainer does
    images = torch.randn(BATCH, MODALITIES, *args.patch, device=device)
    with torch.no_grad():
        loss, targets = segmentation_loss(unets[0](images[:, :1]))
    mutual = MAMLLoss(loss.loss, loss.weight_factors, MODALITIES)

    def each_alone() -> None:
        for channel, unet in enumerate(unets):
            step(unet, images[:, channel : channel + 1], loss, targets)

    def predicted(network: nn.Module, x: Tensor, **options: Any) -> Callable[[], None]:
        return lambda: predict(network, x, **options)

    ratios = {
        "step": ratio(
            "step", ("MAML", lambda: step(maml, images, mutual, targets)), ("nnU-Nets", each_alone), args.turns
        ),
        **activations(args.patch, device),
    }
    maml.deep_supervision = unets[0].decoder.deep_supervision = False
    ratios["prediction"] = ratio(
        "prediction of one modality",
        ("MAML", predicted(maml, images[:1], present=(0,))),
        ("nnU-Net", predicted(unets[0], images[:1, :1])),
        3 * args.turns,
    )
    return missed(ratios, GOALS)


def step(network: nn.Module, images: Tensor, loss: nn.Module, targets: Sequence[Tensor]) -> None:
    """Forward, loss, backward."""
    network.train()
    network.zero_grad(set_to_none=True)
    with mixed_precision(images):
        total = loss(network(images), targets)
    total.backward()


@torch.no_grad()
def predict(network: nn.Module, images: Tensor, **options: Any) -> None:
    """One forward pass as at prediction."""
    network.eval()
    with mixed_precision(images):
        network(images, **options)


def activations(patch: Sequence[int], device: torch.device) -> dict[str, float]:
    """Bytes that attention keeps for the backward pass, over those of its naive form."""
    channels = PAPER["features"][0]
    attention = ModalityAttention(nn.Conv3d, MODALITIES, channels).to(device)
    features = [torch.randn(1, channels, *patch, device=device, requires_grad=True) for _ in range(MODALITIES)]
    present = range(MODALITIES)

    def kept(run: Callable[[], Any]) -> int:
        with Storages() as storages:
            fused = run()
        return storages.alive() - fused.nbytes

    naive = kept(lambda: naive_attention(attention, features))
    ours = kept(lambda: attention(features, present)[0])
    attention.recompute = True
    least = kept(lambda: attention(features, present)[0])
    print(f"activations: naive {naive / 2**20:.0f} MiB, ours {ours / 2**20:.0f}, checkpointed {least / 2**20:.0f}")
    return {"activations": ours / naive, "activations, checkpointed": least / naive}


def naive_attention(attention: ModalityAttention, features: Sequence[Tensor]) -> Tensor:
    """Eq. 1 and 2 as they are written: concatenate, convolve."""
    fused = attention.fusion(torch.cat(list(features), 1))
    terms = []
    for gate, feature in zip(attention.gates, features, strict=True):
        values: Any = gate
        hidden = values.first_activation(values.first(torch.cat([feature, fused], 1)))
        terms.append(values.second(hidden).sigmoid() * feature)
    total: Tensor = torch.stack(terms).sum(0)
    return total


if __name__ == "__main__":
    sys.exit(main())
