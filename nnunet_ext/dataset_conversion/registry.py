"""The data sets that ``nnunet_ext convert`` knows."""

from __future__ import annotations

import difflib
from importlib import import_module
from types import ModuleType

from nnunet_ext.utilities.errors import UsageError

CONVERTERS = {
    "brats": "nnunet_ext.dataset_conversion.brats",
    "covid19_20": "nnunet_ext.dataset_conversion.covid19_20",
    "covid_ct_seg": "nnunet_ext.dataset_conversion.covid_ct_seg",
    "covid_semiseg": "nnunet_ext.dataset_conversion.covid_semiseg",
    "liver_phases": "nnunet_ext.dataset_conversion.liver_phases",
    "lits": "nnunet_ext.dataset_conversion.lits",
    "monuseg_text": "nnunet_ext.dataset_conversion.monuseg_text",
    "mosmed_plus": "nnunet_ext.dataset_conversion.mosmed_plus",
    "msd": "nnunet_ext.dataset_conversion.msd",
    "nsclc_pleural_effusion": "nnunet_ext.dataset_conversion.nsclc_pleural_effusion",
    "qata_cov19": "nnunet_ext.dataset_conversion.qata_cov19",
    "sarcoma": "nnunet_ext.dataset_conversion.sarcoma",
    "sarcoma_ct": "nnunet_ext.dataset_conversion.sarcoma_ct",
    "chestxray14": "nnunet_ext.dataset_conversion.chestxray14",
    "chestxr": "nnunet_ext.dataset_conversion.chestxr",
}


def converter(name: str) -> ModuleType:
    """The module that converts data set `name`; raises UsageError for an unknown name."""
    if name not in CONVERTERS:
        near = difflib.get_close_matches(name, CONVERTERS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"unknown data set {name!r}; {hint}known: {', '.join(CONVERTERS)}")
    return import_module(CONVERTERS[name])
