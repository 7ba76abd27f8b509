"""CTs of soft-tissue sarcomas (Vallieres et al., Phys Med Biol 60, 2015) with the masks of IBSI's validation set."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from nnunet_ext.dataset_conversion.base import (
    BadCaseError,
    Case,
    Conversion,
    Entry,
    needed_folder,
    paired,
    reference,
    unique_by_name,
)
from nnunet_ext.dataset_conversion.folds import patient_folds
from nnunet_ext.utilities.errors import UsageError

HELP = "soft-tissue sarcoma: CTs with tumour masks, or their slices in 2D (non-target lesions for RDCL)"
NAME = "SarcomaCT"
OPTIONS = ("slices", "window")

Window = tuple[float, float]
LUNG_WINDOW: Window = (-1250.0, 250.0)
"""In HU; that of the COVID-19-CT-Seg benchmark. Soft tissue is near 219 of 255, much as in COVID-SemiSeg's slices."""

LABELS = {"background": 0, "tumour": 1}
URL, LICENCE = "https://doi.org/10.7937/K9/TCIA.2015.7GO2GSKS", "CC BY 3.0"


def plan(source: Path, slices: bool = False, window: Window | None = None) -> Conversion:
    """The CT and its mask of every patient folder; MR and PET beside them are on other grids and are left out.

    With `slices` a two-dimensional data set is written instead: every axial slice that holds tumour, in 8 bits by
    `window` (HU that become 0 and 255).
    """
    from nnunet_ext.dataset_conversion.ct import finish_ct, process_ct
    from nnunet_ext.dataset_conversion.slices import finish_slices

    low, high = LUNG_WINDOW if window is None else window
    if window is not None and not slices:
        raise UsageError("--window concerns 8-bit slices; give --slices as well, or leave it out")
    if low >= high:
        raise UsageError(f"--window {low:g} {high:g}: the first must be below the second")
    images, masks = patient_files(source, "CT")
    if not images:
        raise UsageError(f"{source} holds no PATIENT/CT_image.nii.gz; expected STS_001/CT_image.nii.gz and so on")
    cases = paired(images, masks, no_label="no CT_mask.nii.gz beside it", no_image="no CT_image.nii.gz beside it")
    return Conversion(
        converter="sarcoma_ct",
        source=source,
        cases=unique_by_name(cases),
        dataset_json={"labels": LABELS}
        | reference("Soft-tissue-Sarcoma (TCIA), CT as in the validation set of IBSI", URL, LICENCE),
        process=partial(process_slices, window=(low, high)) if slices else partial(process_ct, num_labels=len(LABELS)),
        finish=finish_slices if slices else finish_ct,
        options={"slices": slices} | ({"window": [low, high]} if slices else {}),
        folds=patient_folds,
        name="SarcomaSlices" if slices else None,
    )


def patient_files(source: Path, modality: str) -> tuple[dict[str, Path], dict[str, Path]]:
    """Patient -> image and patient -> mask of one modality: ``CT``, ``MR_T1`` or ``PET``."""
    needed_folder(source, f"STS_001/{modality}_image.nii.gz and {modality}_mask.nii.gz")
    images, masks = (
        {f.parent.name: f for f in source.glob(f"[!.]*/{modality}_{kind}.nii.gz")} for kind in ("image", "mask")
    )
    return images, masks


def process_slices(case: Case, folder: Path, *, window: Window) -> Entry:
    """Check one CT and its mask, and write every axial slice that holds tumour as ``NAME_z012``, z from below.

    A slice has the patient's right side in row 0 and the front in column 0, as those of COVID-SemiSeg have. Pixels keep
    their size. Spacing is lost, as nnU-Net knows none for PNG.

    Returns: shape (voxels, z y x), spacing (mm, z y x), voxels per label, intensity, slices, files.

    Raises:
        BadCaseError: what makes a CT bad, or no tumour.
    """
    from SimpleITK import DICOMOrient, GetArrayFromImage, GetImageFromArray

    from nnunet_ext.dataset_conversion.ct import read_volume
    from nnunet_ext.dataset_conversion.slices import to_8_bits, write_slice

    volume = read_volume(case, num_labels=len(LABELS))
    image = volume.channels[0]
    assert volume.label is not None
    label_image = GetImageFromArray(volume.label)
    label_image.CopyInformation(image)
    hounsfield, label = (GetArrayFromImage(DICOMOrient(x, "LPS")) for x in (image, label_image))
    chosen = np.flatnonzero(label.any(axis=(1, 2)))
    if chosen.size == 0:
        raise BadCaseError("the mask holds no tumour")
    part = "Ts" if case.split == "test" else "Tr"
    files = []
    for z in chosen.tolist():
        # (y, x) with y to the back and x to the left -> (x, y).
        grey, mask = to_8_bits(hounsfield[z].T, window), np.ascontiguousarray(label[z].T)
        files += write_slice(folder, part, f"{case.name}_z{z:03d}", grey, mask)
    kind = f"windowed {window[0]:g}..{window[1]:g}"
    return volume.entry | {"intensity": kind, "slices": len(chosen), "files": files}
