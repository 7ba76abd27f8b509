import shutil

import numpy as np
import pytest
import SimpleITK
from toy_limb import CT, T1, limb, pose

from nnunet_ext.dataset_conversion.run import convert
from nnunet_ext.dataset_conversion.sarcoma import plan, summary
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json

NAME = "Dataset310_Sarcoma"
PET = {"air": 0, "fat": 60, "muscle": 100, "bone": 80, "tumour": 900}
PATIENTS = ("STS_001", "STS_005", "STS_012")


def write(folder, modality, image, mask, pixel=SimpleITK.sitkInt16):
    folder.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.Cast(image, pixel), str(folder / f"{modality}_image.nii.gz"))
    SimpleITK.WriteImage(mask, str(folder / f"{modality}_mask.nii.gz"))


@pytest.fixture
def source(tmp_path):
    """A CT; a T1 on a part of its grid; a PET on a coarser one, floating point."""
    for seed, name in enumerate(PATIENTS):
        folder = tmp_path / "sarcoma" / name
        write(folder, "CT", *limb(CT, seed=seed))
        write(folder, "MR_T1", *(x[8:48, 10:60, 4:] for x in limb(T1, seed=seed + 9)))
        pet = limb(PET, size=(20, 20, 40), spacing=(5.0, 5.0, 2.0))
        write(folder, "PET", *pet, pixel=SimpleITK.sitkFloat32)
    return tmp_path / "sarcoma"


def run(source, grid="CT", register=False, **options):
    return convert(plan(source, grid=grid, register=register), NAME, processes=1, quiet=True, **options)


def read(raw, case="STS_005"):
    """The three channels and the label map."""
    files = [f"imagesTr/{case}_{index:04d}" for index in range(3)] + [f"labelsTr/{case}"]
    return [SimpleITK.ReadImage(str(raw / NAME / f"{file}.nii.gz")) for file in files]


def grid_of(image):
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


@pytest.mark.parametrize(("grid", "channel"), [("CT", 0), ("MR_T1", 1), ("PET", 2)])
def test_all_on_one_grid_and_the_own_mask_of_it(raw, source, grid, channel):
    run(source, grid)
    images = read(raw)
    file = source / "STS_005" / f"{grid}_image.nii.gz"
    assert {grid_of(image) for image in images} == {grid_of(SimpleITK.ReadImage(str(file)))}
    assert (raw / NAME / "imagesTr" / f"STS_005_{channel:04d}.nii.gz").read_bytes() == file.read_bytes()
    mask = SimpleITK.ReadImage(str(source / "STS_005" / f"{grid}_mask.nii.gz"))
    np.testing.assert_array_equal(*(SimpleITK.GetArrayFromImage(image) for image in (images[3], mask)))
    assert load_json(raw / NAME / "dataset.json")["channel_names"] == {"0": "CT", "1": "T1", "2": "PET"}


@pytest.mark.parametrize("grid", ["CT", "MR_T1", "PET"])
def test_the_tumour_looks_the_same_in_every_modality_on_any_grid(raw, source, grid):
    run(source, grid)
    *images, mask = (SimpleITK.GetArrayFromImage(image) for image in read(raw))
    if grid != "PET":  # there a voxel is half as wide as the tumour
        mask = np.logical_and.reduce([np.roll(mask, shift, axis) for axis in range(3) for shift in (-2, 0, 2)])
    for image, values in zip(images, (CT, T1, PET), strict=True):
        assert np.median(image[mask > 0]) == pytest.approx(values["tumour"], abs=0.15 * max(values.values()))


def test_beyond_a_field_of_view_is_the_background_of_the_modality(raw, source):
    entry = run(source).manifest["cases"]["STS_005"]
    t1 = SimpleITK.GetArrayFromImage(read(raw)[1])
    inside = np.zeros(t1.shape, bool)
    inside[4:, 10:60, 8:48] = True
    assert (t1[~inside] == 0).all()
    own = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(source / "STS_005" / "MR_T1_image.nii.gz")))
    np.testing.assert_allclose(t1[inside], own.ravel(), atol=1e-2)  # on a part of the CT's grid nothing is interpolated
    assert entry["alignment"]["T1"] == {
        "covers_grid": pytest.approx(inside.mean(), abs=1e-4),
        "covers_tumour": 1.0,
        "mask_dice": 1.0,
    }
    larger = limb(T1, size=(80, 64, 40))
    write(source / "STS_005", "MR_T1", *larger)
    run(source, "MR_T1", overwrite=True)
    ct = SimpleITK.GetArrayFromImage(read(raw)[0])
    assert (ct[:, :, :8] == -1024).all() and (ct[:, :, 8:72] != -1024).mean() > 0.9


def test_registration(raw, source):
    shutil.rmtree(source / "STS_012")
    write(source / "STS_005", "MR_T1", *limb(T1, pose((5.0, -4.0, 3.0), 5.0), seed=1))
    manifest = run(source, register=True).manifest
    found = manifest["cases"]["STS_005"]["alignment"]["T1"]["registration"]
    assert found["applied"] and found["mask_dice"][1] > 0.9
    t1, mask = (SimpleITK.GetArrayFromImage(read(raw)[index]) for index in (1, 3))
    assert np.median(t1[mask > 0]) == pytest.approx(T1["tumour"], abs=15)
    assert manifest["options"] == {"grid": "CT", "register": True, "holdout": []}
    lines = summary(manifest["cases"])
    assert len(lines) == 4 and lines[2].startswith("STS_005 T1: covers ") and "registration applied" in lines[2]


def test_summary():
    registration = {"applied": False, "translation_mm": 4.25, "rotation_deg": 1.5}
    registration |= {"mutual_information": [0.31, 0.4], "mask_dice": [0.9, 0.72]}
    shares = {"covers_grid": 0.5, "covers_tumour": 1.0, "mask_dice": 0.9}
    entries = {
        "a": {"alignment": {"T1": shares | {"registration": registration}}},
        "b": {"alignment": {"PET": shares | {"registration": {"applied": False, "failed": "lost"}}}},
    }
    assert summary(entries) == [
        "a T1: covers 50% of the grid, 100% of the tumour; mask Dice 0.900; registration not applied: 4.2 mm,"
        " 1.5 degrees, mutual information 0.310 -> 0.400, mask Dice 0.900 -> 0.720",
        "b PET: covers 50% of the grid, 100% of the tumour; mask Dice 0.900; registration failed (lost)",
    ]


def test_bad_cases_are_named_with_the_modality(raw, source):
    (source / "STS_001" / "PET_mask.nii.gz").unlink()
    (source / "STS_001" / "MR_T1_image.nii.gz").unlink()
    image, mask = limb(T1)
    for one in (image, mask):
        one.SetOrigin((900.0, 0.0, 0.0))
    write(source / "STS_005", "MR_T1", image, mask)
    write(source / "STS_012", "PET", limb(PET)[0], limb(PET)[1][1:])
    with pytest.raises(UsageError) as error:
        run(source)
    message = str(error.value)
    assert "STS_001: no MR_T1_image.nii.gz and no PET_mask.nii.gz" in message
    assert "STS_005: MR_T1 on the grid of CT: the fields of view have no point in common" in message
    assert "STS_012: PET: shape mismatch: image" in message
    assert not list(raw.iterdir())


def test_no_tumour(source, raw):
    image, mask = limb(CT)
    write(source / "STS_005", "CT", image, mask * 0)
    with pytest.raises(UsageError, match="STS_005: CT: the mask holds no tumour"):
        run(source)


def test_holdout_and_second_run(raw, source):
    manifest = run(source, holdout=["STS_001"]).manifest
    assert manifest["cases"]["STS_001"]["files"][0] == "imagesTs/STS_001_0000.nii.gz"
    assert len(manifest["cases"]["STS_001"]["sources"]) == 6
    assert len(load_json(raw / NAME / "splits_final.json")) == 2
    assert not run(source, holdout=["STS_001"]).written
    with pytest.raises(UsageError, match="--overwrite"):
        run(source, "PET", holdout=["STS_001"])


def test_wrong_options_and_layout(source, tmp_path):
    with pytest.raises(UsageError, match="--grid MR is not one of CT, MR_T1, PET"):
        plan(source, grid="MR")
    with pytest.raises(UsageError, match=r"holds no PATIENT/CT_image.nii.gz"):
        plan(tmp_path)


@pytest.mark.real_data
def test_real_sample(raw, real_data):
    manifest = run(real_data / "sarcoma").manifest
    assert len(manifest["cases"]) == 13 and not manifest["skipped"]
    alignments = [entry["alignment"] for entry in manifest["cases"].values()]
    assert {found["T1"]["mask_dice"] for found in alignments} == {1.0}  # one contour in the same voxels
    assert min(found["PET"]["mask_dice"] for found in alignments) > 0.9
    assert {found[channel]["covers_tumour"] for found in alignments for channel in ("T1", "PET")} == {1.0}
    assert min(found["T1"]["covers_grid"] for found in alignments) < 0.2
    _, _, pet, mask = (SimpleITK.GetArrayFromImage(image) for image in read(raw, "STS_008"))
    assert pet[mask > 0].mean() > 3 * pet[mask == 0].mean()
