"""MoNuSeg (Kumar et al., IEEE TMI 39, 2020) with the sentences of LViT: nuclei in H&E-stained tissue, in colour."""

from __future__ import annotations

from pathlib import Path

from nnunet_ext.dataset_conversion.base import Conversion, reference
from nnunet_ext.dataset_conversion.lvit import OPTIONS, plan_lvit

__all__ = ["HELP", "NAME", "OPTIONS", "plan"]

HELP = "MoNuSeg: nuclei in H&E-stained tissue (2D, colour), a sentence per image (LViT's)"
NAME = "MoNuSegText"
CHANNELS = {"0": "R", "1": "G", "2": "B"}


def plan(source: Path, cross_validation: bool = False) -> Conversion:
    """See `plan_lvit`; one file holds the three channels of an image, as nnU-Net reads natural images."""
    return plan_lvit(
        source,
        converter="monuseg_text",
        foreground="nucleus",
        channel_names=CHANNELS,
        about=reference(
            "MoNuSeg with the sentences and the split of LViT", "https://github.com/HUANGLIZI/LViT", "CC BY-NC-SA 4.0"
        ),
        cross_validation=cross_validation,
        patient=patient,
    )


def patient(name: str) -> str:
    """``TCGA-21-5784-01Z-00-DX1`` is of ``TCGA-21-5784``: a TCGA barcode names project, site and participant first."""
    parts = name.split("-")
    return "-".join(parts[:3]) if parts[0] == "TCGA" else name
