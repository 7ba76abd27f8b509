"""Phantoms as files, in the layouts that ``nnunet_ext convert`` reads: covid19_20, chestxr and msd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.phantom.radiograph import radiograph
from nnunet_ext.phantom.thorax import thorax
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path, save_json

FIELD_OF_VIEW = (240.0, 288.0, 288.0)
"""(z, y, x), mm."""
XRAY_VOLUME_SHAPE = (112, 40, 112)
"""An X-ray is projected from a volume that is fine where it is seen and coarse along the beam."""
CT_FINDINGS = (("covid",), ("covid", "tumour"), ("covid", "effusion"))
"""Taken in turn. Tumours and effusions are background: not every shadow is COVID-19."""
OTHER_FINDINGS = (("tumour",), ("effusion",), ("consolidation",))
"""Taken in turn: what the CTs of other diseases have, and their masks show."""
OTHER_TASK = "Task90_OtherLesions"
XRAY_FINDINGS: dict[str, tuple[str, ...]] = {"healthy": (), "pneumonia": ("consolidation",), "covid": ("covid",)}
"""Class -> what is in the volume; classes are taken in turn."""
CT_PATIENTS, OTHER_PATIENTS, XRAY_PATIENTS = 0, 250_000, 500_000
"""First patient of each kind, counted from ``seed * PATIENTS_PER_SEED``: nobody has two images."""
MOST_PATIENTS = 250_000
PATIENTS_PER_SEED = 1_000_000

CtJob = tuple[Path, Path, int, tuple[int, int, int], tuple[str, ...], str]
XrayJob = tuple[Path, int, tuple[str, ...]]


def ct_name(number: int) -> str:
    """``1 -> "volume-phantom-A-0001"``: the case name after conversion."""
    return f"volume-phantom-A-{number:04d}"


def ct_jobs(folder: Path, number: int, seed: int, shape: tuple[int, int, int]) -> list[CtJob]:
    """The arguments of `write_ct` for `number` patients with COVID-19, below ``folder/covid19_20/Train``."""
    jobs: list[CtJob] = []
    for i, patient in enumerate(_patients(number, "--cts", seed, CT_PATIENTS)):
        image, label = (folder / "covid19_20" / "Train" / f"{ct_name(i + 1)}_{kind}.nii.gz" for kind in ("ct", "seg"))
        jobs.append((image, label, patient, shape, CT_FINDINGS[i % len(CT_FINDINGS)], "covid"))
    return jobs


def other_jobs(folder: Path, number: int, seed: int, shape: tuple[int, int, int]) -> list[CtJob]:
    """The arguments of `write_ct` for `number` patients with another disease, below ``folder/Task90_OtherLesions``."""
    jobs: list[CtJob] = []
    for i, patient in enumerate(_patients(number, "--others", seed, OTHER_PATIENTS)):
        image, label = (folder / OTHER_TASK / kind / f"lesion-{i + 1:04d}.nii.gz" for kind in ("imagesTr", "labelsTr"))
        findings = OTHER_FINDINGS[i % len(OTHER_FINDINGS)]
        jobs.append((image, label, patient, shape, findings, findings[0]))
    return jobs


def xray_jobs(folder: Path, number: int, seed: int) -> list[XrayJob]:
    """The arguments of `write_xray` for `number` patients: ``folder/chestxr/train/CLASS/CLASS-0001.png``."""
    classes = list(XRAY_FINDINGS)
    jobs = []
    for i, patient in enumerate(_patients(number, "--xrays", seed, XRAY_PATIENTS)):
        name = classes[i % len(classes)]
        path = folder / "chestxr" / "train" / name / f"{name}-{i // len(classes) + 1:04d}.png"
        jobs.append((path, patient, XRAY_FINDINGS[name]))
    return jobs


def write_ct(
    image: Path, label: Path, seed: int, shape: tuple[int, int, int], findings: tuple[str, ...], target: str
) -> None:
    """Write a CT (int16, HU) and the mask (uint8, 1: lesion) of its finding `target`.

    The field of view stays `FIELD_OF_VIEW`; the voxel size follows from `shape`.
    """
    spacing = (FIELD_OF_VIEW[0] / shape[0], FIELD_OF_VIEW[1] / shape[1], FIELD_OF_VIEW[2] / shape[2])
    patient = thorax(seed, shape, spacing, findings)
    _write_volume(patient.ct, spacing, image)
    _write_volume(patient.lesions[target].astype(np.uint8), spacing, label)


def write_description(folder: Path, number: int) -> None:
    """Write the dataset.json of ``folder/Task90_OtherLesions``, which has `number` cases."""
    cases = [f"lesion-{i + 1:04d}.nii.gz" for i in range(number)]
    content = {
        "name": "OtherLesions",
        "description": "synthetic CTs with tumours, effusions or consolidations",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "lesion"},
        "numTraining": number,
        "training": [{"image": f"./imagesTr/{case}", "label": f"./labelsTr/{case}"} for case in cases],
    }
    save_json(content, folder / OTHER_TASK / "dataset.json")


def write_xray(path: Path, seed: int, findings: tuple[str, ...]) -> None:
    """Write the radiograph of one patient, 256 x 256 grey pixels."""
    from PIL import Image

    depth, height, width = XRAY_VOLUME_SHAPE
    spacing = (FIELD_OF_VIEW[0] / depth, FIELD_OF_VIEW[1] / height, FIELD_OF_VIEW[2] / width)
    image = radiograph(thorax(seed, XRAY_VOLUME_SHAPE, spacing, findings).ct, spacing)
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary)


def _write_volume(values: NDArray[np.generic], spacing: tuple[float, float, float], path: Path) -> None:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing(spacing[::-1])
    with atomic_path(path) as temporary:
        SimpleITK.WriteImage(image, str(temporary))


def _patients(number: int, flag: str, seed: int, first: int) -> range:
    if not 0 <= number <= MOST_PATIENTS:
        raise UsageError(f"{flag} {number} is outside the range [0, {MOST_PATIENTS}]")
    start = seed * PATIENTS_PER_SEED + first
    return range(start, start + number)
