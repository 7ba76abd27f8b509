"""MosMedData+ with the sentences of LViT: lung CT slices with COVID-19 infection masks."""

from __future__ import annotations

from pathlib import Path

from nnunet_ext.dataset_conversion.base import Conversion, reference
from nnunet_ext.dataset_conversion.lvit import OPTIONS, plan_lvit
from nnunet_ext.dataset_conversion.slices import CHANNELS

__all__ = ["HELP", "NAME", "OPTIONS", "plan"]

HELP = "MosMedData+: lung CT slices with COVID-19 infection masks, a sentence per image (LViT's; data of the TMC paper)"
NAME = "MosMedDataPlus"


def plan(source: Path, cross_validation: bool = False) -> Conversion:
    """See `plan_lvit`; slices are grey, whatever their files say."""
    return plan_lvit(
        source,
        converter="mosmed_plus",
        foreground="infection",
        channel_names=CHANNELS,
        about=reference(
            "MosMedData+ with the sentences and the split of LViT",
            "https://github.com/HUANGLIZI/LViT",
            "that of MosMedData+: read it where you download",
        ),
        cross_validation=cross_validation,
    )
