"""X-rays as one memory-mapped array of small 8-bit images, built once by ``nnunet_ext link``.

``$nnUNet_preprocessed/Dataset700_Name/nnunet_ext_xrays_256/`` holds ``images.npy`` (N, 256, 256) uint8 and
``index.json``; `xray_cache_building` makes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_ext.data.xray_dataset import XrayTable, read_xray_dataset, require_same_classes
from nnunet_ext.utilities.datasets import dataset_id, dataset_name, nnunet_folder, raw_folder, relations
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json

DEFAULT_SIDE = 256
PREFIX = "nnunet_ext_xrays_"
VERSION = 1


@dataclass(frozen=True, eq=False)
class XrayCache(XrayTable):
    """N X-rays of side x side pixels, ready to be drawn from. Pickles without its images, which are mapped again."""

    folder: Path
    side: int
    mean: float
    """of the training images, grey values in [0, 1]"""
    std: float

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """(N, side, side) uint8, read-only and memory-mapped."""
        return np.load(self.folder / "images.npy", mmap_mode="r")  # type: ignore[no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "images"}

    @property
    def megabytes(self) -> float:
        """Size of the images on disk."""
        return len(self) * self.side**2 / 1e6


def open_xray_cache(name_or_id: str | int, size: int | None = None, repair: str | None = None) -> XrayCache:
    """The cache of the given side, or the largest one there is.

    Where the raw data set is still there, the cache must stem from what it holds now.

    Args:
        name_or_id: the X-ray data set.
        size: pixels along one side.
        repair: the command that an error is to recommend; by default that of `link` for an unnamed target.

    Raises:
        UsageError: there is no such cache, or it is stale or damaged; names the command that repairs it.
    """
    name = dataset_name(name_or_id)
    sides = [size] if size else cached_sides(name)[-1:]
    side = sides[0] if sides else DEFAULT_SIDE
    command = repair or f"nnunet_ext link TARGET --xray {dataset_id(name)}" + (f" --size {size}" if size else "")
    folder = cache_folder(name, side)
    if not folder.is_dir():
        raise UsageError(f"the X-rays of {name} are not cached ({folder} does not exist); run: {command}")
    cache = load_xray_cache(folder, command)
    if _raw_exists(name) and read_xray_dataset(name).fingerprint != cache.fingerprint:
        raise UsageError(f"{folder} is stale: labels or images of {name} have changed since; run: {command}")
    return cache


def cached_sides(name_or_id: str | int) -> list[int]:
    """Sides of the caches that a data set has, ascending; empty if there is none."""
    folder = nnunet_folder("nnUNet_preprocessed") / dataset_name(name_or_id)
    suffixes = [path.name[len(PREFIX) :] for path in folder.glob(f"{PREFIX}*")]
    return sorted(int(suffix) for suffix in suffixes if suffix.isdigit())


def linked_xray_caches(dataset_json: dict[str, Any], target_name: str, side: int) -> list[XrayCache]:
    """The caches of the X-ray data sets that a target is linked to: of each the smallest with `side` pixels or more.

    Raises:
        UsageError: no relation, or a cache that is missing, stale, damaged or too small, or classes that differ; names
            the command that repairs it.
    """
    target = dataset_id(target_name)
    identifiers = relations(dataset_json).get("xray")
    if not isinstance(identifiers, list) or not identifiers:
        raise UsageError(f"{target_name} is linked to no X-ray data set; run: nnunet_ext link {target} --xray ID")
    command = f"nnunet_ext link {target} --xray {' '.join(map(str, identifiers))}"
    caches = []
    for identifier in identifiers:
        sides = cached_sides(identifier)
        large = [cached for cached in sides if cached >= side]
        if sides and not large:
            raise UsageError(
                f"the X-rays of {dataset_name(identifier)} are cached at {sides[-1]} pixels, but a patch of {side} is"
                f" asked for; run: {command} --size {side}"
            )
        size = large[0] if large else max(side, DEFAULT_SIDE)
        caches.append(open_xray_cache(identifier, size, f"{command} --size {size}"))
    require_same_classes(caches)
    return caches


def cache_folder(name: str, side: int) -> Path:
    """Where the cache of ``Dataset700_Name`` at side x side pixels lies, or is to lie."""
    return nnunet_folder("nnUNet_preprocessed") / name / f"{PREFIX}{side}"


def _raw_exists(name: str) -> bool:
    try:
        raw_folder(name)
    except UsageError:
        return False
    return True


def load_xray_cache(folder: Path, repair: str) -> XrayCache:
    """The cache in `folder`, whose index and images must fit together; UsageError recommending `repair` otherwise."""
    try:
        index = load_json(folder / "index.json")
        rows, num_classes = index["labels"], len(index["classes"])
        if index["version"] != VERSION:
            raise ValueError(f"version {index['version']} is not {VERSION}")
        labels = np.frombuffer("".join(rows).encode(), dtype=np.uint8).reshape(len(rows), num_classes) - ord("0")
        cache = XrayCache(
            name=index["name"],
            task=index["task"],
            classes=tuple(index["classes"]),
            image_names=tuple(index["images"]),
            patients=tuple(index["patients"]),
            splits=tuple(index["splits"]),
            labels=labels,
            fingerprint=index["fingerprint"],
            folder=folder,
            side=index["side"],
            mean=index["mean"],
            std=index["std"],
        )
        if cache.images.shape != (len(rows), cache.side, cache.side) or cache.images.dtype != np.uint8:
            raise ValueError(f"images.npy is {cache.images.dtype} {cache.images.shape}, the index has {len(rows)} rows")
        if {len(column) for column in (cache.image_names, cache.patients, cache.splits)} != {len(rows)}:
            raise ValueError("index.json has columns of different lengths")
    except (UsageError, OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder} is damaged ({error}); run: {repair}") from None
    return cache
