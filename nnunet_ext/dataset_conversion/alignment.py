"""Where one modality of a patient lies relative to another, and whether a registration is to be trusted."""

from __future__ import annotations

from collections.abc import Callable

from SimpleITK import Image, Transform

from nnunet_ext.dataset_conversion.base import BadCaseError, Entry
from nnunet_ext.dataset_conversion.ct import Volume
from nnunet_ext.dataset_conversion.registration import register_rigid
from nnunet_ext.dataset_conversion.resampling import dice, field_of_view, mask_onto_grid
from nnunet_ext.dataset_conversion.volumes import like


def align(fixed: Volume, moving: Volume, outside: float, register: bool) -> tuple[Transform, Entry]:
    """The transform that takes points of `fixed` to points of `moving`, and what the manifest says about it.

    It is the identity, or with `register` what the registration finds, if both the mutual information and the Dice of
    the two tumour masks are higher with it than without. Mutual information alone is no judge: it also rises when skin
    is laid on skin at the cost of what lies within. `outside` is the value of air in `fixed`.

    Returns: the transform; the shares of the grid and of its tumour that the other's field of view covers, the Dice of
    the two masks, and the figures of the registration.

    Raises:
        BadCaseError: the fields of view have no point in common.
    """
    grid, image = fixed.channels[0], moving.channels[0]
    assert fixed.label is not None and moving.label is not None
    tumour, mask = fixed.label > 0, like(image, moving.label)

    def overlap(transform: Transform) -> float:
        return dice(tumour, mask_onto_grid(mask, grid, transform))

    transform, figures = Transform(), {}
    if not field_of_view(image, grid, transform).any():
        raise BadCaseError("the fields of view have no point in common")
    if register:
        found, figures["registration"] = _registered(grid, image, outside, overlap)
        transform = found or transform
    view = field_of_view(image, grid, transform)
    shares = {"covers_grid": view.mean(), "covers_tumour": view[tumour].mean(), "mask_dice": overlap(transform)}
    return transform, {key: round(float(value), 4) for key, value in shares.items()} | figures


def _registered(
    fixed: Image, moving: Image, outside: float, overlap: Callable[[Transform], float]
) -> tuple[Transform | None, Entry]:
    """The transform of the registration, None where it is not to be applied, and its figures."""
    try:
        found = register_rigid(fixed, moving, outside)
    except RuntimeError as error:
        return None, {"applied": False, "failed": str(error).strip().splitlines()[-1]}
    before, after = overlap(Transform()), overlap(found.transform)
    applied = found.mutual_information[1] > found.mutual_information[0] and after > before
    return found.transform if applied else None, {
        "applied": applied,
        "translation_mm": round(found.translation, 2),
        "rotation_deg": round(found.rotation, 2),
        "mutual_information": [round(value, 4) for value in found.mutual_information],
        "mask_dice": [round(before, 4), round(after, 4)],
    }
