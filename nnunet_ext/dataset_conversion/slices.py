"""Two-dimensional data sets for nnU-Net: 8-bit slices and their label maps as PNG."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from nnunet_ext.dataset_conversion.base import BadCaseError, Conversion, Entry
from nnunet_ext.utilities.files import save_json

FILE_ENDING = ".png"
CHANNELS = {"0": "CT slice"}
"""Not "CT": what 8 bits stand for in HU may differ between slices, so nnU-Net shall normalise each by itself."""


def write_slice(
    folder: Path, part: str, name: str, image: npt.NDArray[np.uint8], label: npt.NDArray[np.uint8]
) -> list[str]:
    """Write image and label map, (rows, columns) both, to ``images{part}`` and ``labels{part}``; the files written."""
    files = [f"images{part}/{name}_0000{FILE_ENDING}", f"labels{part}/{name}{FILE_ENDING}"]
    for file, values in zip(files, (image, label), strict=True):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(folder / file)
    return files


def finish_slices(folder: Path, conversion: Conversion, entries: dict[str, Entry]) -> None:
    """Write dataset.json (one grey channel) and splits_final.json (folds of the training slices).

    An entry may have written several slices; all of them belong to its patient.
    """
    training = {
        PurePosixPath(file).stem: entry["patient"]
        for entry in entries.values()
        for file in entry["files"]
        if file.startswith("labelsTr/")
    }
    assert conversion.folds is not None
    save_json(conversion.folds(training), folder / "splits_final.json")
    content = {"channel_names": CHANNELS, "numTraining": len(training), "file_ending": FILE_ENDING}
    save_json(conversion.dataset_json | content, folder / "dataset.json")


def to_8_bits(hounsfield: npt.NDArray[Any], window: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """HU to grey values: the lower end of `window` and less is 0, the upper end and more 255, rounded between."""
    low, high = window
    scaled = (np.clip(hounsfield.astype(np.float64), low, high) - low) / (high - low)
    return np.rint(scaled * 255).astype(np.uint8)


def grey_values(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """The (rows, columns) grey values of an 8-bit picture, coloured ones by luminance.

    Raises:
        BadCaseError: another depth, or one grey value everywhere.
    """
    if picture.mode not in ("L", "LA", "P", "RGB", "RGBA"):
        raise BadCaseError(f"image has mode {picture.mode}, not 8 bits per channel")
    values = np.asarray(picture.convert("L"))
    if values.min() == values.max():
        raise BadCaseError(f"image is empty: every pixel is {values.min()}")
    return values
