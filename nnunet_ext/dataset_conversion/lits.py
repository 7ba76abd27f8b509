"""LiTS (Bilic et al., Medical Image Analysis 84, 2023): 131 abdominal CTs with liver and liver tumours, 70 without."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from nnunet_ext.dataset_conversion.base import (
    Case,
    Conversion,
    case_name,
    needed_folder,
    paired,
    reference,
    unique_by_name,
)
from nnunet_ext.dataset_conversion.folds import patient_folds
from nnunet_ext.utilities.errors import UsageError

HELP = "LiTS: 131 CTs with liver and tumour masks (non-target data of the RDCL paper)"
NAME = "LiTS"
OPTIONS = ("ignore_label_headers",)

FILE = re.compile(r"(test-volume|volume|segmentation)-(\d+)")


def plan(source: Path, ignore_label_headers: bool = False) -> Conversion:
    """Pair ``volume-N`` with ``segmentation-N``, in any folders below `source`; ``test-volume-N`` have no masks.

    With `ignore_label_headers` masks take the header of their CT, whatever their own says.
    """
    from nnunet_ext.dataset_conversion.ct import finish_ct, process_ct

    found: dict[str, dict[str, Path]] = {"volume": {}, "segmentation": {}, "test-volume": {}}
    for file in sorted(needed_folder(source, "volume-0.nii and segmentation-0.nii").rglob("*.nii*")):
        match = FILE.fullmatch(case_name(file))
        if match and file.is_file():
            files, name = found[match[1]], f"{match[1].replace('segmentation', 'volume')}-{int(match[2]):03d}"
            if name in files:
                raise UsageError(f"{files[name]} and {file} have one number; remove one")
            files[name] = file
    if not found["volume"]:
        raise UsageError(f"{source} holds no volume-N.nii; expected volume-0.nii, segmentation-0.nii and so on")
    cases = paired(
        found["volume"],
        found["segmentation"],
        no_label="no segmentation of this number",
        no_image="a segmentation, but no volume of this number",
    )
    cases += [Case(name, name, "test", image) for name, image in found["test-volume"].items()]
    return Conversion(
        converter="lits",
        source=source,
        cases=unique_by_name(cases),
        dataset_json={"labels": {"background": 0, "liver": 1, "tumour": 2}}
        | reference(
            "Liver Tumor Segmentation Challenge",
            "https://competitions.codalab.org/competitions/17094",
            "terms of the challenge",
        ),
        process=partial(process_ct, num_labels=3, label_header="ignore" if ignore_label_headers else "check"),
        finish=finish_ct,
        options={"ignore_label_headers": ignore_label_headers},
        folds=patient_folds,
    )
