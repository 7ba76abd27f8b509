"""An endless, resumable stream of augmented X-ray batches.

The samples of all ranks form one sequence: epoch after epoch, each a fresh permutation of the training images. Rank r
of R takes the places r, r + R, ... of it, so ranks never share an image within an epoch, and the batches of R ranks
hold what one rank with the R-fold batch would get. What a place shows is a pure function of (seed, epoch, index).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from nnunet_ext.data.stream import PlacedStream
from nnunet_ext.data.xray_augmentation import XrayAugmentation, draw_view, normalise, show
from nnunet_ext.data.xray_cache import XrayCache
from nnunet_ext.data.xray_dataset import require_same_classes

Sample = tuple[int, int]
"""epoch, index among the training images of all caches"""


class XrayBatches(Dataset[tuple[Tensor, Tensor]]):
    """Samples -> images (B, 1, height, width) float32 and labels: float32 (B, C), or int64 (B,) if multiclass."""

    def __init__(
        self, caches: Sequence[XrayCache], patch_size: tuple[int, int], augmentation: XrayAugmentation, seed: int
    ) -> None:
        require_same_classes(caches)
        self.caches, self.patch_size, self.augmentation, self.seed = list(caches), patch_size, augmentation, seed
        self.mean, self.std = pooled_mean_and_std(caches)
        rows = [cache.indices("train") for cache in caches]
        self.cache_numbers = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
        self.rows = np.concatenate(rows)
        labels = torch.from_numpy(np.concatenate([c.labels[part] for c, part in zip(caches, rows, strict=True)]))
        self.labels = labels.argmax(1) if caches[0].task == "multiclass" else labels.float()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        images = torch.empty(len(samples), 1, *self.patch_size)
        for image, (epoch, index) in zip(images, samples, strict=True):
            cache = self.caches[self.cache_numbers[index]]
            view = draw_view(_generator(1, self.seed, epoch, index), self.augmentation)
            image[0] = show(np.array(cache.images[self.rows[index]]), view, self.patch_size)
        return normalise(images, self.mean, self.std), self.labels[[index for _, index in samples]]


class XrayStream(PlacedStream[tuple[Tensor, Tensor]]):
    """Iterator over (images, labels) as `XrayBatches` gives them; endless.

    Args:
        caches: X-ray data sets that agree in task and classes; their training images are drawn from.
        batch_size: images per batch; may exceed the number of images.
        patch_size: height and width of the images, pixels.
        seed: of order and augmentation, the same on all ranks.
        min_scale, flip, rotation: see `XrayAugmentation`.
        rank, world_size, num_workers, pin_memory, start_method: see `PlacedStream`.

    Raises:
        UsageError: data sets that differ in task or classes.
    """

    def __init__(
        self,
        caches: Sequence[XrayCache],
        batch_size: int,
        patch_size: tuple[int, int],
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        min_scale: float = 0.5,
        flip: bool = False,
        rotation: float = 7.0,
        pin_memory: bool = False,
        start_method: str | None = None,
    ) -> None:
        self.batches = XrayBatches(caches, patch_size, XrayAugmentation(min_scale, flip, rotation), seed)
        self.task, self.classes = caches[0].task, caches[0].classes
        self.mean, self.std = self.batches.mean, self.batches.std
        super().__init__(
            self.batches,
            batch_size,
            name="X-ray",
            rank=rank,
            world_size=world_size,
            num_workers=num_workers,
            pin_memory=pin_memory,
            start_method=start_method,
        )

    def requests(self, places: Iterator[int]) -> Iterator[list[Sample]]:
        """The samples of one batch after the other."""
        while True:
            batch = itertools.islice(places, self.places_per_batch)
            yield [sample_at(place, self.batches.seed, len(self.batches)) for place in batch]


def sample_at(place: int, seed: int, num_images: int) -> Sample:
    """Epoch and image of a place in the common sequence."""
    epoch, offset = divmod(place, num_images)
    return epoch, int(epoch_permutation(seed, epoch, num_images)[offset])


@lru_cache(maxsize=2)
def epoch_permutation(seed: int, epoch: int, num_images: int) -> NDArray[np.int64]:
    """The order of the images in an epoch: a pure function of its arguments."""
    return _generator(0, seed, epoch).permutation(num_images)


def pooled_mean_and_std(caches: Sequence[XrayCache]) -> tuple[float, float]:
    """Mean and standard deviation of the training images of all caches taken together, grey values in [0, 1]."""
    counts = np.array([len(cache.indices("train")) for cache in caches], dtype=float)
    means, stds = (np.array([getattr(cache, name) for cache in caches]) for name in ("mean", "std"))
    mean = float(np.average(means, weights=counts))
    return mean, math.sqrt(np.average(stds**2 + (means - mean) ** 2, weights=counts))


def _generator(purpose: int, seed: int, *numbers: int) -> np.random.Generator:
    return np.random.default_rng([purpose, seed % 2**63, *numbers])
