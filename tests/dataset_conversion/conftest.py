"""Tiny sources in the layouts of the public data sets."""

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from PIL import Image


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Empty nnU-Net folders; the path of nnUNet_raw."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return tmp_path / "nnUNet_raw"


@pytest.fixture
def write_nifti():
    def write(path, values, spacing=(0.75, 0.75, 5.0), origin=(1.0, -2.0, 3.0), direction=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        image = SimpleITK.GetImageFromArray(np.asarray(values))
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        if direction is not None:
            image.SetDirection(direction)
        SimpleITK.WriteImage(image, str(path))
        return path

    return write


@pytest.fixture
def ct():
    """(values in HU, label map) of a seeded random thorax of 4 x 8 x 6 voxels (z y x)."""

    def make(seed):
        generator = np.random.default_rng(seed)
        values = generator.integers(-1000, 400, (4, 8, 6)).astype(np.int16)
        return values, (generator.random(values.shape) > 0.7).astype(np.uint8)

    return make


@pytest.fixture
def challenge(tmp_path, write_nifti, ct):
    """A source in the layout of COVID-19-20 with the given numbers as labelled cases."""

    def make(numbers=(3, 11, 16, 25, 31, 34), unlabelled=()):
        source = tmp_path / "COVID-19-20"
        for seed, number in enumerate(numbers):
            values, label = ct(seed)
            write_nifti(source / "Train" / f"volume-covid19-A-{number:04d}_ct.nii.gz", values)
            write_nifti(source / "Train" / f"volume-covid19-A-{number:04d}_seg.nii.gz", label)
        for number in unlabelled:
            write_nifti(source / "Validation" / f"volume-covid19-A-{number:04d}_ct.nii.gz", ct(number)[0])
        return source

    return make


@pytest.fixture
def write_xray():
    def write(path, seed=0, size=(9, 7)):
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)
        Image.fromarray(values).save(path)
        return path

    return write


@pytest.fixture
def class_folders(tmp_path, write_xray):
    """A source in the layout of ChestXR: 20 images per class in train, 6 in validation."""
    source = tmp_path / "chest_xr"
    for index, name in enumerate(("normal", "pneumonia", "covid")):
        for number in range(20):
            write_xray(source / "train" / name / f"{number}.png", seed=100 * index + number)
        for number in range(6):
            write_xray(source / "validation" / name / f"{number}.jpg", seed=1000 + 100 * index + number)
    return source


@pytest.fixture
def real_data():
    """The folder of real samples; skips where there is none."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("NNUNET_EXT_TEST_DATA") or beside)
    if not folder.is_dir():
        pytest.skip("no real samples")
    return folder


@pytest.fixture
def tree():
    """Every file below a folder with its content."""
    return lambda folder: {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
