"""Build the cache of a data set's X-rays once; a build that was killed is continued.

Images are appended to a file in a hidden folder that is named after the data set's content, and the folder is renamed
into place when it is whole: a cache is there or it is not. How far a killed run came is the length of that file. Two
builds at the same time write the same bytes to the same places, and the second finds the cache made.
"""

from __future__ import annotations

import io
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nnunet_ext.data.xray_cache import DEFAULT_SIDE, VERSION, cache_folder, load_xray_cache
from nnunet_ext.data.xray_dataset import XrayDataset, read_xray_dataset
from nnunet_ext.data.xray_image import read_xray
from nnunet_ext.utilities.datasets import dataset_name
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import save_json

CHUNK = 256
"""images that are decoded before they are written"""


def build_xray_cache(
    name_or_id: str | int, size: int = DEFAULT_SIDE, num_processes: int = 2, quiet: bool = False
) -> Path:
    """Cache the X-rays of a data set at size x size pixels, unless that is done; returns the cache's folder.

    Every image is read even after a fault, so that one message names all that are unreadable; nothing is kept then.

    Args:
        name_or_id: a data set in ``nnUNet_raw``.
        size: pixels along one side.
        num_processes: images that are decoded at a time (in threads: Pillow decodes outside the interpreter's lock).
        quiet: show no progress bar.

    Raises:
        UsageError: a fault in the data set, unreadable images, or too little space.
    """
    name = dataset_name(name_or_id)
    final = cache_folder(name, size)
    dataset = read_xray_dataset(name)
    if _is_whole(final, dataset.fingerprint):
        return final
    work = final.with_name(f".{final.name}.{dataset.fingerprint[:16]}")
    for leftover in final.parent.glob(f".{final.name}.*"):
        if leftover != work:
            shutil.rmtree(leftover, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    try:
        _write_images(dataset, size, work / "images.npy", num_processes, quiet)
        _write_index(dataset, size, work)
        if final.is_dir() and not _is_whole(final, dataset.fingerprint):
            shutil.rmtree(final)
        work.rename(final)
    except UsageError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    except OSError:  # another process has made the same cache meanwhile, or there is a fault in the file system
        if not _is_whole(final, dataset.fingerprint):
            raise
        shutil.rmtree(work, ignore_errors=True)
    return final


def _is_whole(folder: Path, fingerprint: str) -> bool:
    try:
        return load_xray_cache(folder, repair="").fingerprint == fingerprint
    except UsageError:
        return False


def _write_images(dataset: XrayDataset, side: int, file: Path, num_threads: int, quiet: bool) -> None:
    """Append the images in the order of the table; those that a killed run has left in `file` are kept."""
    header = _npy_header((len(dataset), side, side))
    file.touch()
    done = max(file.stat().st_size - len(header), 0) // side**2
    _require_space(file.parent, (len(dataset) - done) * side**2)
    paths = dataset.image_paths()
    faults: list[str] = []
    bar = tqdm(total=len(paths), initial=done, desc=dataset.name, unit="image", disable=True if quiet else None)
    with ThreadPoolExecutor(num_threads) as pool, file.open("r+b") as output, bar:
        output.write(header)
        output.seek(len(header) + done * side**2)
        for start in range(done, len(paths), CHUNK):
            chunk = list(pool.map(partial(_read_or_fault, side=side), paths[start : start + CHUNK]))
            faults += [item for item in chunk if isinstance(item, str)]
            if not faults:
                output.write(np.stack([item for item in chunk if not isinstance(item, str)]).tobytes())
            bar.update(len(chunk))
        output.flush()
        os.fsync(output.fileno())
    if faults:
        raise UsageError(
            f"{dataset.name}: {len(faults)} of {len(paths)} images cannot be read; restore them or remove their rows"
            " from the table of labels:\n" + "\n".join(faults)
        )


def _read_or_fault(path: Path, side: int) -> NDArray[np.uint8] | str:
    try:
        return read_xray(path, side)
    except UsageError as error:
        return str(error)


def _npy_header(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UsageError(
            f"the cache needs {needed / 1e6:.0f} MB in {folder.parent}, of which {free / 1e6:.0f} MB are free; make"
            " room or choose a smaller --size"
        )


def _write_index(dataset: XrayDataset, side: int, folder: Path) -> None:
    images = np.load(folder / "images.npy", mmap_mode="r")
    mean, std = grey_statistics(images, dataset.indices("train"))
    if std == 0:
        raise UsageError(
            f"{dataset.name}: all training images show the same grey value {mean:g}; nothing can be learnt"
        )
    index = {
        "version": VERSION,
        "name": dataset.name,
        "task": dataset.task,
        "classes": list(dataset.classes),
        "side": side,
        "mean": mean,
        "std": std,
        "fingerprint": dataset.fingerprint,
        "images": list(dataset.image_names),
        "patients": list(dataset.patients),
        "splits": list(dataset.splits),
        "labels": ["".join(map(str, row)) for row in dataset.labels.tolist()],
    }
    save_json(index, folder / "index.json")


def grey_statistics(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> tuple[float, float]:
    """Mean and standard deviation of all pixels of images[rows], grey values in [0, 1]; (N, S, S) uint8, rows >= 1."""
    histogram = np.zeros(256, dtype=np.int64)
    for row in rows:
        histogram += np.bincount(images[row].ravel(), minlength=256)
    values = np.arange(256) / 255
    share = histogram / histogram.sum()
    mean = float(share @ values)
    return mean, float(np.sqrt(share @ (values - mean) ** 2))
