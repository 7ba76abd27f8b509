"""An endless, resumable stream of augmented image patches of further nnU-Net data sets, without their labels.

Cases are read, cut, padded and augmented by nnU-Net's own loader and by the transforms of the trainer. Batch i of a
rank is a pure function of (seed, rank, i); the generators of the training are left as they were.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor

from nnunet_ext.data.related_data import Kind, related_cases
from nnunet_ext.data.stream import PlacedStream
from nnunet_ext.utilities.errors import UsageError

Transforms = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class PatchSource:
    """One preprocessed data set to draw patches from.

    Attributes:
        folder: the data identifier folder, e.g. ``$nnUNet_preprocessed/Dataset301_X/nnUNetPlans_3d_fullres_of_201``.
        cases: names of the cases to draw from, at least one.
        share: weight of this source in the mix, above 0; by default its number of cases, so that all cases of all
            sources are equally likely.
    """

    folder: Path
    cases: tuple[str, ...]
    share: float | None = None

    def __post_init__(self) -> None:
        if not self.cases:
            raise UsageError(f"{self.folder} has no case to draw patches from")
        if self.share is not None and not self.share > 0:
            raise UsageError(f"the share {self.share} of {self.folder} in the mix must be above 0")

    @property
    def weight(self) -> float:
        """`share`, or the number of cases."""
        return float(len(self.cases)) if self.share is None else self.share


class PatchStream(PlacedStream[Tensor]):
    """Iterator over image patches (batch_size, channels, *patch_size) float32; endless.

    The transforms see a segmentation that is -1 outside the body, as nnU-Net's masked normalisation marks it, and 0
    elsewhere: label values end where the foreground has decided the place of a patch.

    Args:
        sources: what to draw from, at least one.
        batch_size: patches per batch.
        patch_size: 2 or 3 numbers, voxels; 2: slices along the first axis of the cases.
        transforms: nnU-Net's training transforms (image=, segmentation= -> dict); None: no augmentation.
        initial_patch_size: what is cut before the spatial transform crops it to `patch_size`; None: `patch_size`.
        oversample_foreground: share of the batch, its last patches, that is centred on foreground where the case has
            any; in [0, 1].
        seed: of cases, places and augmentation, the same on all ranks.
        rank, world_size, num_workers, pin_memory, start_method: see `PlacedStream`.

    Raises:
        UsageError: no source.
    """

    def __init__(
        self,
        sources: Sequence[PatchSource],
        batch_size: int,
        patch_size: Sequence[int],
        *,
        transforms: Transforms | None = None,
        initial_patch_size: Sequence[int] | None = None,
        oversample_foreground: float = 0.33,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        start_method: str | None = None,
    ) -> None:
        loader = nnUNetDataLoader(
            MixedCases(sources),
            batch_size,
            list(patch_size if initial_patch_size is None else initial_patch_size),
            list(patch_size),
            SimpleNamespace(all_labels=[], has_ignore_label=False),
            oversample_foreground,
            sampling_probabilities=mixing_probabilities(sources),
            transforms=WithoutLabels(transforms),
        )
        super().__init__(
            PatchBatches(loader, seed),
            1,
            name="patch",
            rank=rank,
            world_size=world_size,
            num_workers=num_workers,
            pin_memory=pin_memory,
            start_method=start_method,
        )

    def requests(self, places: Iterator[int]) -> Iterator[int]:
        """A place is a whole batch."""
        return places


class PatchBatches:
    """Place -> batch of patches, a pure function of (seed, place)."""

    def __init__(self, loader: nnUNetDataLoader, seed: int) -> None:
        self.loader, self.seed = loader, seed

    def __getitem__(self, place: int) -> Tensor:
        with seeded(self.seed, place):
            data: Tensor = self.loader.generate_train_batch()["data"]
        return data


class MixedCases:
    """The cases of several sources as one nnU-Net data set, numbered through."""

    def __init__(self, sources: Sequence[PatchSource]) -> None:
        if not sources:
            raise UsageError("there is no data set to draw patches from")
        self.datasets = [infer_dataset_class(str(s.folder))(str(s.folder), list(s.cases)) for s in sources]
        self.cases = [(number, case) for number, source in enumerate(sources) for case in source.cases]
        self.identifiers = list(range(len(self.cases)))

    def load_case(self, identifier: int) -> tuple[Any, Any, None, dict[str, Any]]:
        """Image, segmentation, nothing of a previous stage, properties; cases without labels have no foreground."""
        number, case = self.cases[identifier]
        data, segmentation, _, properties = self.datasets[number].load_case(case)
        return data, segmentation, None, {"class_locations": {}, **properties}


@dataclass(frozen=True)
class WithoutLabels:
    """`transforms` that are shown where the body is (0) and where not (-1), but no label."""

    transforms: Transforms | None

    def __call__(self, image: Tensor, segmentation: Tensor) -> dict[str, Any]:
        """As nnU-Net's transforms; both (channels, *spatial)."""
        hidden = segmentation.clamp(max=0)
        if self.transforms is None:
            return {"image": image, "segmentation": hidden}
        return self.transforms(image=image, segmentation=hidden)


def related_sources(
    dataset_json: dict[str, Any], kind: Kind, plans_manager: PlansManager, configuration: str
) -> list[PatchSource]:
    """The data sets that a target is linked to, preprocessed with its plans; all their cases are equally likely.

    Args:
        dataset_json: of the target.
        kind: ``"non_target"`` or ``"unlabeled"``.
        plans_manager: of the target's plans.
        configuration: e.g. ``3d_fullres``.

    Raises:
        UsageError: no relation, or a data set that is not preprocessed with the target's plans as they are now; names
            the command that repairs it.
    """
    found = related_cases(dataset_json, kind, plans_manager, configuration)
    return [PatchSource(folder, cases) for folder, cases in found.items()]


def mixing_probabilities(sources: Sequence[PatchSource]) -> list[float]:
    """Probability of every case, source after source: a source by its weight, then its cases evenly."""
    total = sum(source.weight for source in sources)
    return [source.weight / total / len(source.cases) for source in sources for _ in source.cases]


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's (CPU) generators by `numbers` inside, and put them back afterwards."""
    seeds = np.random.SeedSequence([number % 2**63 for number in numbers]).generate_state(3, np.uint64)
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            random.seed(int(seeds[0]))
            np.random.seed(int(seeds[1] % 2**32))
            torch.default_generator.manual_seed(int(seeds[2] % 2**63))  # torch.manual_seed would seed CUDA too
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
