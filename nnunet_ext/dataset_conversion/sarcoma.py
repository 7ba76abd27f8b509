"""CT, T1 and PET of soft-tissue sarcomas (Vallieres et al., Phys Med Biol 60, 2015), on one grid."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext.dataset_conversion.base import BadCaseError, Case, Conversion, Entry, place, reference, unique_by_name
from nnunet_ext.dataset_conversion.folds import patient_folds
from nnunet_ext.dataset_conversion.sarcoma_ct import LABELS, LICENCE, URL, patient_files
from nnunet_ext.utilities.errors import UsageError

if TYPE_CHECKING:
    from nnunet_ext.dataset_conversion.ct import Volume

HELP = "soft-tissue sarcoma: CT, T1 and PET on one grid, with tumour masks (several modalities)"
NAME = "Sarcoma"
OPTIONS = ("grid", "register")

CHANNELS = {"CT": "CT", "MR_T1": "T1", "PET": "PET"}
"""Modality, as in file names -> channel."""
OUTSIDE = {"CT": -1024.0, "MR_T1": 0.0, "PET": 0.0}
"""What a voxel beyond the field of view of a modality gets: air in HU, no signal."""


def plan(source: Path, grid: str = "CT", register: bool = False) -> Conversion:
    """The three images of every patient folder on the grid of one of them, with the mask of that one.

    With `register` the others are registered to it rigidly, and moved where that brings the tumour masks together.
    """
    from nnunet_ext.dataset_conversion.ct import finish_ct

    if grid not in CHANNELS:
        raise UsageError(f"--grid {grid} is not one of {', '.join(CHANNELS)}")
    patients = {name for modality in CHANNELS for files in patient_files(source, modality) for name in files}
    if not patients:
        raise UsageError(f"{source} holds no PATIENT/CT_image.nii.gz; expected STS_001/CT_image.nii.gz and so on")
    return Conversion(
        converter="sarcoma",
        source=source,
        cases=unique_by_name([_case(source / name) for name in patients]),
        dataset_json={
            "channel_names": {str(index): name for index, name in enumerate(CHANNELS.values())},
            "labels": LABELS,
        }
        | reference("Soft-tissue-Sarcoma (TCIA), CT, T1 and PET as in the validation set of IBSI", URL, LICENCE),
        process=partial(process_sarcoma, grid=grid, register=register),
        finish=finish_ct,
        options={"grid": grid, "register": register},
        folds=patient_folds,
        summary=summary,
    )


def _case(folder: Path) -> Case:
    images, masks = ([folder / f"{modality}_{kind}.nii.gz" for modality in CHANNELS] for kind in ("image", "mask"))
    return Case(
        *(folder.name, folder.name, "train", images[0], masks[0]),
        problem=" and ".join(f"no {file.name}" for file in (*images, *masks) if not file.is_file()) or None,
        channels=tuple(images[1:]),
        channel_labels=tuple(masks[1:]),
    )


def process_sarcoma(case: Case, folder: Path, *, grid: str, register: bool) -> Entry:
    """Check the images and masks of one patient, and write the images and one mask on the grid of modality `grid`.

    The image of that modality is linked and its mask taken as it is: the label map is never resampled. The other images
    are interpolated linearly to float32, with `OUTSIDE` where they do not reach.

    Returns: shape (voxels, z y x), spacing (mm, z y x), voxels per label, files, and for the others what `align` says.

    Raises:
        BadCaseError: what makes a CT bad, in any of the modalities; no tumour; images that have no point in common.
    """
    from nnunet_ext.dataset_conversion.alignment import align
    from nnunet_ext.dataset_conversion.ct import FILE_ENDING
    from nnunet_ext.dataset_conversion.resampling import onto_grid
    from nnunet_ext.dataset_conversion.volumes import like, write_volume

    volumes = _read(case)
    fixed = volumes[grid]
    assert fixed.label is not None
    if not fixed.label.any():
        raise BadCaseError(f"{grid}: the mask holds no tumour")
    entry, others = fixed.entry | {"alignment": {}}, {}
    for modality, channel in CHANNELS.items():
        if modality != grid:
            try:
                transform, entry["alignment"][channel] = align(fixed, volumes[modality], OUTSIDE[grid], register)
            except BadCaseError as reason:
                raise BadCaseError(f"{modality} on the grid of {grid}: {reason}") from None
            others[modality] = onto_grid(volumes[modality].channels[0], fixed.channels[0], transform, OUTSIDE[modality])
    part = "Ts" if case.split == "test" else "Tr"
    files = [f"images{part}/{case.name}_{index:04d}{FILE_ENDING}" for index in range(len(CHANNELS))]
    for modality, image, file in zip(CHANNELS, case.images, files, strict=True):
        if modality == grid:
            place(image, folder / file)
        else:
            write_volume(others[modality], folder, file)
    label = like(fixed.channels[0], fixed.label)
    return entry | {"files": [*files, write_volume(label, folder, f"labels{part}/{case.name}{FILE_ENDING}")]}


def _read(case: Case) -> dict[str, Volume]:
    """Modality -> its checked image and mask; BadCaseError names the modality."""
    from nnunet_ext.dataset_conversion.ct import read_volume

    volumes = {}
    assert case.label is not None
    for modality, image, mask in zip(CHANNELS, case.images, (case.label, *case.channel_labels), strict=True):
        try:
            volumes[modality] = read_volume(
                Case(case.name, case.patient, case.split, image, mask), num_labels=len(LABELS)
            )
        except BadCaseError as reason:
            raise BadCaseError(f"{modality}: {reason}") from None
    return volumes


def summary(entries: dict[str, Entry]) -> list[str]:
    """A line per case and resampled channel: what it covers, how the masks overlap, and what the registration did."""
    lines = []
    for name, entry in entries.items():
        for channel, found in entry["alignment"].items():
            line = (
                f"{name} {channel}: covers {found['covers_grid']:.0%} of the grid, {found['covers_tumour']:.0%} of the"
                f" tumour; mask Dice {found['mask_dice']:.3f}"
            )
            lines.append(line + (f"; {_registration(found['registration'])}" if "registration" in found else ""))
    return lines


def _registration(figures: Entry) -> str:
    if "failed" in figures:
        return f"registration failed ({figures['failed']})"
    information, dice = (" -> ".join(f"{x:.3f}" for x in figures[key]) for key in ("mutual_information", "mask_dice"))
    return (
        f"registration {'applied' if figures['applied'] else 'not applied'}: {figures['translation_mm']:.1f} mm,"
        f" {figures['rotation_deg']:.1f} degrees, mutual information {information}, mask Dice {dice}"
    )
