"""An endless, resumable stream of augmented X-ray batches.

The samples of all ranks form one sequence: epoch after epoch, each a fresh permutation of the training images. Rank r
of R takes the places r, r + R, ... of it, so ranks never share an image within an epoch, and the batches of R ranks
hold what one rank with the R-fold batch would get. What a place shows is a pure function of (seed, epoch, index), so
one number, the place reached, is all that a checkpoint needs, and workers change nothing but the speed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

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


class XrayStream:
    """Iterator over (images, labels) as `XrayBatches` gives them; endless.

    Workers start with the first batch. After `close`, another batch would start them anew.

    Args:
        caches: X-ray data sets that agree in task and classes; their training images are drawn from.
        batch_size: images per batch; may exceed the number of images.
        patch_size: height and width of the images, pixels.
        seed: of order and augmentation, the same on all ranks.
        rank: number of this process, below `world_size`.
        world_size: processes that share the images.
        num_workers: background processes; 0: the batch is made when it is asked for.
        min_scale, flip, rotation: see `XrayAugmentation`.
        pin_memory: page-locked batches, for CUDA.
        start_method: of the workers (fork, spawn, forkserver); none: Python's default.

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
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.num_workers, self.pin_memory, self.start_method = num_workers, pin_memory, start_method
        self._position = 0
        self._iterator: Iterator[Any] | None = None

    def __iter__(self) -> XrayStream:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        if self._iterator is None:
            self._iterator = self._start()
        try:
            images, labels = next(self._iterator)
        except (ConnectionError, FileNotFoundError, EOFError) as error:  # a batch of a worker that is no longer there
            raise RuntimeError(
                "a DataLoader worker of the X-ray stream was killed, most often for want of memory; lower"
                " nnUNet_n_proc_DA"
            ) from error
        self._position += self.batch_size * self.world_size
        return images, labels

    def state_dict(self) -> dict[str, int]:
        """The place reached in the common sequence, and its seed; the same on all ranks."""
        return {"position": self._position, "seed": self.batches.seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at the place, and with the seed, of `state`, also with other workers, ranks or batch size."""
        self.close()
        self._position, self.batches.seed = state["position"], state["seed"]

    def close(self) -> None:
        """Stop the workers, also in the middle of an iteration; a second call does nothing."""
        iterator, self._iterator = self._iterator, None
        # A traceback may still hold the iterator, so its own clean-up on deletion could come too late.
        shut_down = getattr(iterator, "_shutdown_workers", None)
        if shut_down is not None:
            with suppress(RuntimeError):  # a worker was killed; the others are stopped all the same
                shut_down()

    def _start(self) -> Iterator[Any]:
        places = itertools.count(self._position + self.rank, self.world_size)
        loader = DataLoader(
            self.batches,
            batch_size=None,
            sampler=_batches(places, self.batch_size, self.batches.seed, len(self.batches)),
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            multiprocessing_context=self.start_method if self.num_workers else None,
            generator=torch.Generator(),  # else it would draw from, and so disturb, the training's random numbers
        )
        return iter(loader)


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


def _batches(places: Iterator[int], batch_size: int, seed: int, num_images: int) -> Iterator[list[Sample]]:
    while True:
        yield [sample_at(place, seed, num_images) for place in itertools.islice(places, batch_size)]


def _generator(purpose: int, seed: int, *numbers: int) -> np.random.Generator:
    return np.random.default_rng([purpose, seed % 2**63, *numbers])
