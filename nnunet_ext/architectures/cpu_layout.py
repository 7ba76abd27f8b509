"""nnU-Net's networks on a CPU: the layout and the norm for which PyTorch has its fast kernels there.

In PyTorch, instance norm on a CPU is a batch norm of a reshaped, contiguous copy. Group norm with one group per channel
is the same formula in one kernel, which leaves tensors with channels last as they are, and convolutions of such tensors
are faster. A GPU runs as nnU-Net does.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

LAYOUTS: dict[int, Any] = {4: torch.channels_last, 5: torch.channels_last_3d}


class ChannelwiseNorm(nn.Module):
    """An affine instance norm without running statistics: its parameters, names and formula.

    Args:
        norm: the host's module, whose parameters become ours.
    """

    def __init__(self, norm: _InstanceNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *spatial), each channel of each image normalised by itself."""
        if x.device.type == "cpu":
            return F.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


def use_channelwise_norms(network: nn.Module) -> None:
    """Put `ChannelwiseNorm` in the place of each affine instance norm without running statistics inside `network`."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, _InstanceNorm) and child.affine and not child.track_running_stats:
                setattr(module, name, ChannelwiseNorm(child))


def weights_channels_last(network: nn.Module) -> None:
    """Store the kernels of all convolutions, 2D or 3D, in the layout of `channels_last`; for a network on a CPU."""
    for parameter in network.parameters():
        if parameter.ndim in LAYOUTS:
            parameter.data = parameter.data.contiguous(memory_format=LAYOUTS[parameter.ndim])


def channels_last(x: Tensor) -> Tensor:
    """On a CPU a copy of `x` (B, C, *spatial; 2D or 3D) with channels last in memory, otherwise `x` itself."""
    if x.device.type != "cpu":
        return x
    # A copy even of one channel: the same memory in both layouts, but convolutions go by the strides.
    return torch.empty_like(x, memory_format=LAYOUTS[x.ndim]).copy_(x)
