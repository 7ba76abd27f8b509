"""Phantoms as files, in the layouts that ``nnunet_ext convert covid19_20`` and ``convert chestxr`` read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.phantom.radiograph import radiograph
from nnunet_ext.phantom.thorax import thorax
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path

FIELD_OF_VIEW = (240.0, 288.0, 288.0)
"""(z, y, x), mm."""
XRAY_VOLUME_SHAPE = (112, 40, 112)
"""An X-ray is projected from a volume that is fine where it is seen and coarse along the beam."""
CT_FINDINGS = (("covid",), ("covid", "tumour"), ("covid", "effusion"))
"""Taken in turn. Tumours and effusions are background: not every shadow is COVID-19."""
XRAY_FINDINGS: dict[str, tuple[str, ...]] = {"healthy": (), "pneumonia": ("consolidation",), "covid": ("covid",)}
"""Class -> what is in the volume; classes are taken in turn."""
CT_PATIENTS, XRAY_PATIENTS = 0, 500_000
"""First patient of each kind, counted from ``seed * PATIENTS_PER_SEED``: nobody has both images."""
PATIENTS_PER_SEED = 1_000_000

CtJob = tuple[Path, int, tuple[int, int, int], tuple[str, ...]]
XrayJob = tuple[Path, int, tuple[str, ...]]


def ct_name(number: int) -> str:
    """``1 -> "volume-phantom-A-0001"``: the case name after conversion."""
    return f"volume-phantom-A-{number:04d}"


def ct_jobs(folder: Path, number: int, seed: int, shape: tuple[int, int, int]) -> list[CtJob]:
    """The arguments of `write_ct` for `number` patients, below ``folder/covid19_20/Train``."""
    first = seed * PATIENTS_PER_SEED + CT_PATIENTS
    return [
        (folder / "covid19_20" / "Train" / ct_name(i + 1), first + i, shape, CT_FINDINGS[i % len(CT_FINDINGS)])
        for i in range(_valid(number, "--cts"))
    ]


def xray_jobs(folder: Path, number: int, seed: int) -> list[XrayJob]:
    """The arguments of `write_xray` for `number` patients: ``folder/chestxr/train/CLASS/CLASS-0001.png``."""
    first, classes = seed * PATIENTS_PER_SEED + XRAY_PATIENTS, list(XRAY_FINDINGS)
    jobs = []
    for i in range(_valid(number, "--xrays")):
        name = classes[i % len(classes)]
        path = folder / "chestxr" / "train" / name / f"{name}-{i // len(classes) + 1:04d}.png"
        jobs.append((path, first + i, XRAY_FINDINGS[name]))
    return jobs


def write_ct(path: Path, seed: int, shape: tuple[int, int, int], findings: tuple[str, ...]) -> None:
    """Write ``path_ct.nii.gz`` (int16, HU) and ``path_seg.nii.gz`` (uint8, 1: COVID-19 lesion) of one patient.

    The field of view stays `FIELD_OF_VIEW`; the voxel size follows from `shape`.
    """
    spacing = (FIELD_OF_VIEW[0] / shape[0], FIELD_OF_VIEW[1] / shape[1], FIELD_OF_VIEW[2] / shape[2])
    patient = thorax(seed, shape, spacing, findings)
    _write_volume(patient.ct, spacing, path.with_name(f"{path.name}_ct.nii.gz"))
    _write_volume(patient.lesions["covid"].astype(np.uint8), spacing, path.with_name(f"{path.name}_seg.nii.gz"))


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


def _valid(number: int, flag: str) -> int:
    limit = XRAY_PATIENTS - CT_PATIENTS
    if not 0 <= number <= limit:
        raise UsageError(f"{flag} {number} is outside the range [0, {limit}]")
    return number
