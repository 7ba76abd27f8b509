"""nnU-Net's own U-Nets, as far as several systems build on them."""

from __future__ import annotations

from typing import Any

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunet_ext.utilities.errors import UsageError


def require_images_only(trainer: str, plans: dict[str, Any], configuration: str) -> None:
    """Raises UsageError, naming `trainer`, unless the configuration exists and takes images alone, not the segmentation
    of a stage before it."""
    if configuration not in plans["configurations"]:
        raise UsageError(f"-c {configuration} is not in the plans; they have {', '.join(plans['configurations'])}")
    if PlansManager(plans).get_configuration(configuration).previous_stage_name is not None:
        raise UsageError(
            f"{trainer} cannot train configuration {configuration}: it takes a segmentation besides the images; use"
            " -c 2d or -c 3d_fullres"
        )


def paper_unet(table: dict[str, Any]) -> nn.Module:
    """nnU-Net's plain U-Net with the sizes of a paper's table, two convolutions per stage, one channel, two classes.

    table: patch_size, features, strides and kernel_sizes, the last three per stage.
    """
    dimensions, stages = len(table["patch_size"]), len(table["features"])
    arguments = {
        "n_stages": stages,
        "features_per_stage": table["features"],
        "conv_op": f"torch.nn.Conv{dimensions}d",
        "kernel_sizes": table["kernel_sizes"],
        "strides": table["strides"],
        "n_conv_per_stage": 2,
        "n_conv_per_stage_decoder": 2,
        "conv_bias": True,
        "norm_op": f"torch.nn.InstanceNorm{dimensions}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    network: nn.Module = get_network_from_plans(
        "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        arguments,
        ("conv_op", "norm_op", "nonlin"),
        1,
        2,
        allow_init=False,
        deep_supervision=True,
    )
    return network
