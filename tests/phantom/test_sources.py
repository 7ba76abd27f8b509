from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from PIL import Image

from nnunet_ext.phantom.sources import FIELD_OF_VIEW, ct_jobs, ct_name, other_jobs, write_ct, write_xray, xray_jobs
from nnunet_ext.utilities.errors import UsageError


def test_jobs_name_the_files_that_the_converters_expect():
    cts, xrays = ct_jobs(Path("out"), 3, 0, (16, 32, 32)), xray_jobs(Path("out"), 4, 0)
    for column, kind in enumerate(("ct", "seg")):
        names = [f"out/covid19_20/Train/{ct_name(i)}_{kind}.nii.gz" for i in (1, 2, 3)]
        assert [job[column].as_posix() for job in cts] == names
    assert all("covid" in job[4] and job[5] == "covid" for job in cts)
    others = other_jobs(Path("out"), 4, 0, (16, 32, 32))
    assert [job[5] for job in others] == ["tumour", "effusion", "consolidation", "tumour"]
    assert others[3][1].as_posix() == "out/Task90_OtherLesions/labelsTr/lesion-0004.nii.gz"
    assert [job[0].relative_to("out/chestxr/train").as_posix() for job in xrays] == [
        "healthy/healthy-0001.png",
        "pneumonia/pneumonia-0001.png",
        "covid/covid-0001.png",
        "healthy/healthy-0002.png",
    ]


def test_no_patient_has_two_images():
    patients = []
    for seed in (0, 1, 2):
        patients += [job[2] for make in (ct_jobs, other_jobs) for job in make(Path(), 50, seed, (16,) * 3)]
        patients += [job[1] for job in xray_jobs(Path(), 50, seed)]
    assert len(set(patients)) == len(patients) == 450


def test_impossible_number_is_named():
    with pytest.raises(UsageError, match="--cts -1"):
        ct_jobs(Path(), -1, 0, (16, 32, 32))
    with pytest.raises(UsageError, match="--xrays 250001"):
        xray_jobs(Path(), 250_001, 0)


def test_ct_file_and_mask_share_geometry(tmp_path):
    files = tmp_path / "ct.nii.gz", tmp_path / "seg.nii.gz"
    write_ct(*files, 7, (16, 32, 36), ("covid", "tumour"), "covid")
    assert sorted(tmp_path.iterdir()) == [*files]
    ct, mask = (SimpleITK.ReadImage(str(file)) for file in files)
    assert ct.GetSize() == mask.GetSize() == (36, 32, 16)
    assert ct.GetSpacing() == mask.GetSpacing() == pytest.approx((8.0, 9.0, 15.0))
    assert np.multiply(ct.GetSize()[::-1], ct.GetSpacing()[::-1]) == pytest.approx(FIELD_OF_VIEW)
    assert ct.GetPixelIDTypeAsString() == "16-bit signed integer"
    labels = SimpleITK.GetArrayFromImage(mask)
    assert labels.dtype == np.uint8
    assert np.unique(labels).tolist() == [0, 1]


def test_xray_file_is_grey_and_deterministic(tmp_path):
    for name in ("a.png", "b.png"):
        write_xray(tmp_path / name, 9, ("covid",))
    with Image.open(tmp_path / "a.png") as image:
        assert (image.mode, image.size) == ("L", (256, 256))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
