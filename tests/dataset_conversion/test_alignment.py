import pytest
import SimpleITK
from toy_limb import CT, T1, limb, pose

from nnunet_ext.dataset_conversion import alignment
from nnunet_ext.dataset_conversion.alignment import align
from nnunet_ext.dataset_conversion.base import BadCaseError
from nnunet_ext.dataset_conversion.ct import Volume
from nnunet_ext.dataset_conversion.registration import Registration

AIR = -1000.0
IDENTITY = SimpleITK.Transform()
POSE = pose((5.0, -4.0, 3.0), 5.0)


def volume(image, mask):
    return Volume([image], SimpleITK.GetArrayFromImage(mask), {})


def offset(transform):
    """How far the centre of the tumour goes, mm."""
    return sum((a - b) ** 2 for a, b in zip(transform.TransformPoint((-14, 4, 3)), (-14, 4, 3), strict=True)) ** 0.5


def test_without_registration_nothing_moves():
    transform, figures = align(volume(*limb(CT)), volume(*limb(T1, POSE)), AIR, register=False)
    assert offset(transform) == 0
    assert "registration" not in figures and figures["covers_grid"] == figures["covers_tumour"] == 1
    assert 0.3 < figures["mask_dice"] < 0.8


def test_a_registration_that_brings_the_tumours_together_is_applied():
    transform, figures = align(volume(*limb(CT)), volume(*limb(T1, POSE, seed=1)), AIR, register=True)
    found = figures["registration"]
    assert found["applied"] and offset(transform) > 4
    assert found["mutual_information"][1] > found["mutual_information"][0]
    assert figures["mask_dice"] == found["mask_dice"][1] > 0.9 > found["mask_dice"][0]
    assert found["rotation_deg"] == pytest.approx(5, abs=1)


def test_a_registration_that_parts_the_tumours_is_not_applied():
    # The images are off, but the masks say that the tumours are where they should be.
    image, _ = limb(T1, POSE, seed=1)
    transform, figures = align(volume(*limb(CT)), volume(image, limb(CT)[1]), AIR, register=True)
    found = figures["registration"]
    assert not found["applied"] and offset(transform) == 0
    assert found["mutual_information"][1] > found["mutual_information"][0]
    assert found["mask_dice"][1] < found["mask_dice"][0] == figures["mask_dice"] == 1
    assert found["translation_mm"] > 4


def test_a_registration_that_loses_information_is_not_applied(monkeypatch):
    lucky = Registration(POSE.GetInverse(), (0.8, 0.7), 7.0, 5.0)
    monkeypatch.setattr(alignment, "register_rigid", lambda *_: lucky)
    transform, figures = align(volume(*limb(CT)), volume(*limb(T1, POSE)), AIR, register=True)
    assert figures["registration"]["mask_dice"][1] > figures["registration"]["mask_dice"][0]
    assert not figures["registration"]["applied"] and offset(transform) == 0


def test_a_registration_that_fails_is_reported(monkeypatch):
    def fail(*_):
        raise RuntimeError("Exception thrown\nall samples map outside moving image buffer")

    monkeypatch.setattr(alignment, "register_rigid", fail)
    transform, figures = align(volume(*limb(CT)), volume(*limb(T1)), AIR, register=True)
    assert offset(transform) == 0
    assert figures["registration"] == {"applied": False, "failed": "all samples map outside moving image buffer"}


def test_what_the_other_covers():
    image, mask = limb(T1)
    half = [x[:, :, 20:] for x in (image, mask)]  # z from 0 mm up; the tumour reaches from -10 to 16
    figures = align(volume(*limb(CT)), volume(*half), AIR, register=False)[1]
    assert figures["covers_grid"] == 0.5
    assert 0.5 < figures["covers_tumour"] < 0.9


def test_images_without_a_common_point():
    image, mask = limb(T1)
    for one in (image, mask):
        one.SetOrigin((500.0, 0.0, 0.0))
    with pytest.raises(BadCaseError, match="the fields of view have no point in common"):
        align(volume(*limb(CT)), volume(image, mask), AIR, register=False)
