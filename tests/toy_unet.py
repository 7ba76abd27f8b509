"""One of nnU-Net's U-Nets, as small as it gets."""

from __future__ import annotations

from typing import Any

from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn


def unet(
    dimensions: int = 3, residual: bool = False, *, channels: int = 1, classes: int = 2, deep_supervision: bool = True
) -> nn.Module:
    """Three stages of 4, 8 and 12 features, 2D or 3D, plain or residual."""
    arguments: dict[str, Any] = {
        "input_channels": channels,
        "n_stages": 3,
        "features_per_stage": [4, 8, 12],
        "conv_op": nn.Conv3d if dimensions == 3 else nn.Conv2d,
        "kernel_sizes": [[3] * dimensions] * 3,
        "strides": [[1] * dimensions, [2] * dimensions, [2] * dimensions],
        "num_classes": classes,
        "n_conv_per_stage_decoder": 1,
        "conv_bias": True,
        "norm_op": nn.InstanceNorm3d if dimensions == 3 else nn.InstanceNorm2d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        "deep_supervision": deep_supervision,
    }
    if residual:
        return ResidualEncoderUNet(n_blocks_per_stage=[1, 2, 2], **arguments)
    return PlainConvUNet(n_conv_per_stage=2, **arguments)
