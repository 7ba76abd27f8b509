"""What endless, resumable streams of batches share: workers, position, orderly end.

All ranks draw from one sequence of places 0, 1, 2, ...; rank r of R takes the places r, r + R, ... of it. What a place
shows is a pure function of the seed and the place, so one number, the place reached, is all that a checkpoint needs,
and workers change nothing but the speed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset

BatchT = TypeVar("BatchT")


class SeededBatches(Protocol):
    """Makes a whole batch of a request; pickles, as workers receive a copy."""

    seed: int

    def __getitem__(self, request: Any) -> Any: ...


class PlacedStream(Generic[BatchT]):
    """An endless iterator over the batches that a `SeededBatches` makes for this rank's places.

    Workers start with the first batch. After `close`, another batch would start them anew.

    Args:
        batches: makes the batches.
        places_per_batch: places of the sequence that a batch of one rank takes.
        name: of the stream, for messages: "the {name} stream".
        rank: number of this process, below `world_size`.
        world_size: processes that share the sequence.
        num_workers: background processes; 0: the batch is made when it is asked for.
        pin_memory: page-locked batches, for CUDA.
        start_method: of the workers (fork, spawn, forkserver); none: Python's default.
    """

    def __init__(
        self,
        batches: SeededBatches,
        places_per_batch: int,
        *,
        name: str,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        start_method: str | None = None,
    ) -> None:
        self._batches, self.places_per_batch, self.name = batches, places_per_batch, name
        self.rank, self.world_size = rank, world_size
        self.num_workers, self.pin_memory, self.start_method = num_workers, pin_memory, start_method
        self._position = 0
        self._iterator: Iterator[BatchT] | None = None

    def __iter__(self) -> PlacedStream[BatchT]:
        return self

    def __next__(self) -> BatchT:
        if self._iterator is None:
            self._iterator = self._start()
        try:
            batch = next(self._iterator)
        except (ConnectionError, FileNotFoundError, EOFError) as error:  # a batch of a worker that is no longer there
            raise RuntimeError(
                f"a DataLoader worker of the {self.name} stream was killed, most often for want of memory; lower"
                " nnUNet_n_proc_DA"
            ) from error
        self._position += self.places_per_batch * self.world_size
        return batch

    def requests(self, places: Iterator[int]) -> Iterator[Any]:
        """One request to the batches after the other; `places`, endless, are this rank's."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, int]:
        """The place reached in the common sequence, and its seed; the same on all ranks."""
        return {"position": self._position, "seed": self._batches.seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at the place, and with the seed, of `state`, also with other workers, ranks or batch size."""
        self.close()
        self._position, self._batches.seed = state["position"], state["seed"]

    def close(self) -> None:
        """Stop the workers, also in the middle of an iteration; a second call does nothing."""
        iterator, self._iterator = self._iterator, None
        # A traceback may still hold the iterator, so its own clean-up on deletion could come too late.
        shut_down = getattr(iterator, "_shutdown_workers", None)
        if shut_down is not None:
            with suppress(RuntimeError):  # a worker was killed; the others are stopped all the same
                shut_down()

    def _start(self) -> Iterator[BatchT]:
        places = itertools.count(self._position + self.rank, self.world_size)
        loader: DataLoader[BatchT] = DataLoader(
            cast("Dataset[BatchT]", self._batches),
            batch_size=None,
            sampler=cast(Any, self.requests(places)),
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            multiprocessing_context=self.start_method if self.num_workers else None,
            generator=torch.Generator(),  # else it would draw from, and so disturb, the training's random numbers
        )
        return iter(loader)
