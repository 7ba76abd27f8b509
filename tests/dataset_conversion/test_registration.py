import numpy as np
import pytest
import SimpleITK
from toy_limb import CT, T1, limb, pose

from nnunet_ext.dataset_conversion.registration import register_rigid

AIR = -1000.0
TUMOUR = [(-14.0, 4.0, 3.0), (-24.0, 4.0, 3.0), (-14.0, 14.0, 3.0), (-14.0, 4.0, 16.0)]


@pytest.fixture(scope="module")
def moved():
    """What is found for a T1 that lies 7 mm off and is turned by 5 degrees, and the pose."""
    true = pose((5.0, -4.0, 3.0), 5.0)
    return register_rigid(limb(CT)[0], limb(T1, true, seed=1)[0], AIR), true


def test_finds_the_pose(moved):
    found, true = moved
    # Point y of the T1 shows what is at true(y) in the CT: the registration is the way back.
    for point in TUMOUR:
        back = true.TransformPoint(found.transform.TransformPoint(point))
        assert np.linalg.norm(np.subtract(back, point)) < 0.75  # half a voxel, mm
    assert found.rotation == pytest.approx(5.0, abs=1.0)
    before, after = found.mutual_information
    assert 0 < before < after


def test_translation_is_that_of_the_centre(moved):
    found, _ = moved
    centre = found.transform.GetCenter()
    assert found.translation == pytest.approx(
        np.linalg.norm(np.subtract(found.transform.TransformPoint(centre), centre))
    )


def test_images_that_are_aligned_stay(moved):
    found = register_rigid(limb(CT)[0], limb(T1, seed=1)[0], AIR)
    assert found.translation < 0.75 and found.rotation < 1.0
    assert found.mutual_information[0] > moved[0].mutual_information[0]


@pytest.mark.parametrize("threads", [1, 5])
def test_the_numbers_do_not_depend_on_run_or_threads(moved, threads):
    found, true = moved
    before = SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    try:
        again = register_rigid(limb(CT)[0], limb(T1, true, seed=1)[0], AIR)
        assert SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads
    finally:
        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert again.transform.GetParameters() == found.transform.GetParameters()
    assert again.mutual_information == found.mutual_information


def test_images_without_a_common_point():
    moving = limb(T1)[0]
    moving.SetOrigin((500.0, 0.0, 0.0))
    with pytest.raises(RuntimeError):
        register_rigid(limb(CT)[0], moving, AIR)


def test_a_turned_and_shifted_grid_is_no_pose():
    # The same scene on a grid of another direction and origin: nothing is to be moved.
    image = limb(T1, seed=1)[0]
    flipped = SimpleITK.Flip(image, (True, False, False))
    assert flipped.GetDirection() != image.GetDirection()
    assert register_rigid(limb(CT)[0], flipped, AIR).translation < 0.75
