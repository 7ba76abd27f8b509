"""PleThora (Kiser et al., Medical Physics 47, 2020): pleural effusions on 78 CTs of NSCLC-Radiomics."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from nnunet_ext.dataset_conversion.base import Conversion, case_name, needed_folder, paired, reference, unique_by_name
from nnunet_ext.dataset_conversion.folds import patient_folds
from nnunet_ext.utilities.errors import UsageError

HELP = "PleThora: 78 CTs of NSCLC-Radiomics with pleural effusion masks (non-target data of the RDCL paper)"
NAME = "NSCLCPleuralEffusion"
OPTIONS: tuple[str, ...] = ()

MASK = re.compile(r"(LUNG1-\d+)_effusion_(first|second)_reviewer")
CT = re.compile(r"(LUNG1-\d+)(?:_0000)?")


def plan(source: Path) -> Conversion:
    """Pair the effusion mask of the first reviewer with the CT that bears the patient's ID, in any folders.

    A CT without effusion mask is no case; a mask without CT is a bad one.
    """
    from nnunet_ext.dataset_conversion.ct import finish_ct, process_ct

    needed_folder(source, "Effusions/LUNG1-001/LUNG1-001_effusion_first_reviewer.nii.gz")
    images: dict[str, Path] = {}
    masks: dict[tuple[str, str], Path] = {}
    for file in sorted(f for f in source.rglob("*.nii*") if f.is_file()):
        if match := MASK.fullmatch(case_name(file)):
            masks[match[1], match[2]] = file
        elif match := CT.fullmatch(case_name(file)):
            if match[1] in images:
                raise UsageError(f"{images[match[1]]} and {file} are both named as the CT of {match[1]}; remove one")
            images[match[1]] = file
    patients = {name for name, _ in masks}
    if not patients:
        raise UsageError(
            f"{source} holds no *_effusion_first_reviewer.nii.gz; unpack PleThora's Effusions folder into it"
        )
    labels = {name: masks[name, "first"] for name in patients if (name, "first") in masks}
    cases = paired(
        {name: image for name, image in images.items() if name in patients},
        labels,
        no_label="no mask of the first reviewer",
        no_image="no CT that is called like the patient, such as LUNG1-001.nii.gz",
    )
    return Conversion(
        converter="nsclc_pleural_effusion",
        source=source,
        cases=unique_by_name(cases),
        dataset_json={"labels": {"background": 0, "effusion": 1}}
        | reference(
            "PleThora: pleural effusions in NSCLC-Radiomics", "https://doi.org/10.7937/tcia.2020.6c7y-gq39", "CC BY-NC"
        ),
        process=partial(process_ct, num_labels=2, label_header="reorient"),
        finish=finish_ct,
        folds=patient_folds,
    )
