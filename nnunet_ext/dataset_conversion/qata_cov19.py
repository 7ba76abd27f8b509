"""QaTa-COV19 with the sentences of LViT: chest X-rays with COVID-19 lesion masks."""

from __future__ import annotations

from pathlib import Path

from nnunet_ext.dataset_conversion.base import Conversion, reference
from nnunet_ext.dataset_conversion.lvit import OPTIONS, plan_lvit

__all__ = ["HELP", "NAME", "OPTIONS", "plan"]

HELP = "QaTa-COV19: chest X-rays with COVID-19 lesion masks, a sentence per image (LViT's; data of the TMC paper)"
NAME = "QaTaCOV19"


def plan(source: Path, cross_validation: bool = False) -> Conversion:
    """See `plan_lvit`; X-rays are grey, whatever their files say."""
    return plan_lvit(
        source,
        converter="qata_cov19",
        foreground="infection",
        channel_names={"0": "X-ray"},
        about=reference(
            "QaTa-COV19 with the sentences and the split of LViT",
            "https://github.com/HUANGLIZI/LViT",
            "that of QaTa-COV19: read it where you download",
        ),
        cross_validation=cross_validation,
    )
