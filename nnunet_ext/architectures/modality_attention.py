"""Modality-aware attention (Zhang et al., MICCAI 2021, Eq. 1 and 2), without storing a concatenated tensor.

A convolution of concatenated tensors is the sum of the convolutions of each of them by its slice of the kernel. What
autograd keeps then are tensors that exist anyway, the features of the streams, instead of copies of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.helper import get_matching_instancenorm
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class ModalityAttention(nn.Module):
    """F_dual of all features, a gate A_i for the features F_i of each modality, and their sum (Eq. 1 and 2):
    ``F_dual = conv([F_1; ...; F_M])``, ``A_i = sigmoid(f_a([F_i; F_dual]))``, ``F_att = sum_i A_i * F_i``.

    Where modalities are absent, their terms are left out of F_dual and of F_att.

    Args:
        conv_op: nn.Conv2d or nn.Conv3d.
        num_modalities: M.
        channels: C, of every F_i.
        second_kernel: see `Gate`.
        recompute: in training, keep F_dual alone and compute the gates again in the backward pass, one after the
            other.
    """

    def __init__(
        self,
        conv_op: type[nn.Conv2d | nn.Conv3d],
        num_modalities: int,
        channels: int,
        *,
        second_kernel: int = 3,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.channels, self.recompute = channels, recompute
        self.fusion = conv_op(num_modalities * channels, channels, 3, padding=1)
        self.gates = nn.ModuleList(Gate(conv_op, channels, second_kernel) for _ in range(num_modalities))

    def forward(
        self, features: Sequence[Tensor], present: Sequence[int], *, return_gates: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Fuse the features of the modalities that are there.

        Args:
            features: F_i, each (B, C, *spatial), of the modalities `present`, in that order.
            present: positions of these in 0 .. M-1.
            return_gates: also tell the gates.

        Returns: F_att (B, C, *spatial), and the gates, averaged over their C channels and detached, each
        (B, *spatial); none unless asked for.
        """
        fused = self._fuse(features, present)
        terms, gates = [], []
        for index, feature in zip(present, features, strict=True):
            arguments = (self.gates[index], feature, fused, return_gates)
            if self.recompute and feature.requires_grad:
                term, gate = checkpoint(_gated, *arguments, use_reentrant=False)
            else:
                term, gate = _gated(*arguments)
            terms.append(term)
            if gate is not None:
                gates.append(gate)
        return _sum(terms), gates

    def _fuse(self, features: Sequence[Tensor], present: Sequence[int]) -> Tensor:
        """F_dual (B, C, *spatial)."""
        bias = self.fusion.bias
        parts = []
        for index, feature in zip(present, features, strict=True):
            parts.append(convolve_slice(self.fusion, feature, index * self.channels, bias))
            bias = None  # once is enough
        return _sum(parts)


class Gate(nn.Module):
    """A_i of Eq. 1: conv 3 (2C -> C), instance norm, leaky ReLU, conv (C -> C), sigmoid.

    `second_kernel`: 3, straight to the sigmoid as in the paper's figure; 1: with norm and leaky ReLU between, as in
    its text.
    """

    def __init__(self, conv_op: type[nn.Conv2d | nn.Conv3d], channels: int, second_kernel: int = 3) -> None:
        super().__init__()
        self.first = conv_op(2 * channels, channels, 3, padding=1)
        self.first_activation = _norm_and_relu(conv_op, channels)
        self.second = conv_op(channels, channels, second_kernel, padding=second_kernel // 2)
        self.second_activation = _norm_and_relu(conv_op, channels) if second_kernel == 1 else nn.Identity()

    def forward(self, features: Tensor, fused: Tensor) -> Tensor:
        """F_i and F_dual, both (B, C, *spatial) -> one gate in (0, 1) per channel and voxel, (B, C, *spatial)."""
        x = convolve_slice(self.first, features, 0, self.first.bias)
        x = x + convolve_slice(self.first, fused, features.shape[1], None)
        gate: Tensor = self.second_activation(self.second(self.first_activation(x))).sigmoid()
        return gate


def convolve_slice(convolution: nn.Conv2d | nn.Conv3d, x: Tensor, start: int, bias: Tensor | None) -> Tensor:
    """What `convolution` makes of its input channels from `start` on, as many as `x` has, with `bias` added."""
    convolve: Any = F.conv2d if isinstance(convolution, nn.Conv2d) else F.conv3d
    convolved: Tensor = convolve(
        x, convolution.weight[:, start : start + x.shape[1]], bias, padding=convolution.padding
    )
    return convolved


def _gated(gate: nn.Module, features: Tensor, fused: Tensor, return_gate: bool) -> tuple[Tensor, Tensor | None]:
    """A_i * F_i, and the mean of A_i over channels if asked for."""
    values = gate(features, fused)
    return values * features, values.detach().mean(1) if return_gate else None


def _sum(terms: Sequence[Tensor]) -> Tensor:
    """One after the other; `torch.stack` would hold them all a second time."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _norm_and_relu(conv_op: type[nn.Conv2d | nn.Conv3d], channels: int) -> nn.Sequential:
    return nn.Sequential(get_matching_instancenorm(conv_op)(channels, affine=True), nn.LeakyReLU(0.01, inplace=True))
