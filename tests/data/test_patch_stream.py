import itertools
import multiprocessing
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.data.patch_stream import PatchSource, PatchStream, mixing_probabilities, seeded
from nnunet_ext.utilities.errors import UsageError

# Workers are forked on Linux up to Python 3.13, which warns of that once torch has started threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
MakeSource = Callable[..., PatchSource]


@pytest.fixture
def make_source(tmp_path: Path) -> MakeSource:
    """Writes preprocessed cases as nnU-Net does. Case i is noise round `level` + i, with one lesion voxel of `label`
    and brightness 1000 in its last corner, or none (`label` 0)."""

    def make(
        name: str, shapes: Sequence[tuple[int, ...]], level: float = 0, label: int = 0, share: float | None = None
    ) -> PatchSource:
        folder = tmp_path / name
        folder.mkdir()
        for number, shape in enumerate(shapes):
            generator = np.random.default_rng(number)
            data = (level + number + generator.uniform(-0.1, 0.1, (1, *shape))).astype(np.float32)
            segmentation = np.zeros((1, *shape), np.int16)
            properties: dict[str, Any] = {}
            if label:
                voxel = tuple(size - 1 for size in (1, *shape))
                data[voxel], segmentation[voxel] = 1000, label
                properties["class_locations"] = {label: np.array([voxel])}
            chunks = data.shape
            nnUNetDatasetBlosc2.save_case(
                data, segmentation, properties, str(folder / f"case_{number}"), chunks, chunks
            )
        return PatchSource(folder, tuple(f"case_{number}" for number in range(len(shapes))), share)

    return make


def training_transforms(patch_size: Sequence[int]) -> Any:
    axes = tuple(range(len(patch_size)))
    return nnUNetTrainer.get_training_transforms(
        patch_size, (-0.5, 0.5), None, axes, None, use_mask_for_norm=[True], foreground_labels=[1]
    )


def take(stream: PatchStream, number: int) -> list[torch.Tensor]:
    return list(itertools.islice(stream, number))


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("shape", "patch_size"), [((9, 10, 11), (4, 6, 8)), ((9, 10, 11), (6, 8)), ((1, 10, 11), (6, 8))]
)
def test_volumes_slices_of_volumes_and_images(make_source, shape, patch_size):
    initial = [size + 4 for size in patch_size]
    transforms = training_transforms(patch_size)
    stream = PatchStream(
        [make_source("a", [shape])], 3, patch_size, transforms=transforms, initial_patch_size=initial, seed=0
    )
    batch = next(stream)
    assert batch.shape == (3, 1, *patch_size)
    assert batch.dtype == torch.float32
    assert batch.isfinite().all()


def test_without_transforms_patches_are_boxes_of_the_cases(make_source):
    source = make_source("a", [(6, 7, 8)])
    (case,) = (np.array(nnUNetDatasetBlosc2(str(source.folder)).load_case(name)[0])[0] for name in source.cases)
    windows = np.lib.stride_tricks.sliding_window_view(case, (3, 3, 3)).reshape(-1, 27)
    patches = torch.cat(take(PatchStream([source], 4, (3, 3, 3), seed=0), 5)).reshape(-1, 27).numpy()
    assert all((windows == patch).all(1).sum() == 1 for patch in patches)
    assert len(np.unique(patches, axis=0)) > 10


def test_smaller_cases_are_padded_with_zeros(make_source):
    batch = next(PatchStream([make_source("a", [(2, 3, 4)], level=5)], 2, (6, 6, 6), seed=0))
    assert batch.shape == (2, 1, 6, 6, 6)
    assert (batch > 4).sum((1, 2, 3, 4)).tolist() == [24, 24]
    assert (batch == 0).sum((1, 2, 3, 4)).tolist() == [216 - 24, 216 - 24]


@pytest.mark.parametrize("patch_size", [(3, 3, 3), (3, 3)])
def test_last_patches_of_a_batch_hold_foreground(make_source, patch_size):
    stream = PatchStream([make_source("a", [(30, 30, 30)], label=3)], 4, patch_size, oversample_foreground=0.5, seed=0)
    batches = take(stream, 10)
    held = torch.stack([batch.flatten(1).amax(1) == 1000 for batch in batches]).float().mean(0)
    assert held[2:].tolist() == [1, 1]
    assert held[:2].max() < 0.2


def test_cases_without_labels_are_cut_anywhere(make_source):
    stream = PatchStream([make_source("a", [(9, 9, 9)])], 2, (3, 3, 3), oversample_foreground=1, seed=0)
    assert len(torch.cat(take(stream, 5)).unique(dim=0)) == 10


def test_label_values_never_leave(make_source):
    seen = set()

    def spy(image: torch.Tensor, segmentation: torch.Tensor) -> dict[str, Any]:
        assert image.shape == segmentation.shape
        seen.update(segmentation.unique().tolist())
        return {"image": image, "segmentation": segmentation}

    (one, seven) = (make_source(name, [(4, 4, 4)], label=label) for name, label in (("a", 1), ("b", 7)))
    batches = [
        take(PatchStream([source], 2, (6, 6, 6), transforms=spy, oversample_foreground=1, seed=0), 3)
        for source in (one, seven)
    ]
    assert seen == {-1, 0}  # -1: beyond the border
    assert isinstance(batches[0][0], torch.Tensor)
    assert equal(*batches)


@pytest.mark.parametrize(("shares", "expected"), [((None, None), 0.75), ((1, 1), 0.5), ((9, 1), 0.1)])
def test_sources_are_mixed_in_proportion(make_source, shares, expected):
    shapes = [[(4, 4, 4)], [(4, 4, 4)] * 3]
    sources = [make_source(str(i), shapes[i], level=10 * i, share=shares[i]) for i in range(2)]
    levels = torch.cat(take(PatchStream(sources, 20, (2, 2, 2), seed=0), 30)).mean((1, 2, 3, 4))
    assert (levels > 5).float().mean().item() == pytest.approx(expected, abs=0.06)
    cases = torch.bincount(levels[levels > 5].round().long() - 10, minlength=3) / (levels > 5).sum()
    assert cases.tolist() == pytest.approx([1 / 3] * 3, abs=0.15)


@given(st.lists(st.tuples(st.integers(1, 5), st.none() | st.floats(0.01, 100)), min_size=1, max_size=4))
def test_probabilities_sum_to_one_and_follow_the_shares(sources):
    made = [PatchSource(Path(), tuple("abcde"[:number]), share) for number, share in sources]
    probabilities = mixing_probabilities(made)
    assert sum(probabilities) == pytest.approx(1)
    weights = [share or number for number, share in sources]
    starts = np.cumsum([0, *(number for number, _ in sources)])
    for i, weight in enumerate(weights):
        part = probabilities[starts[i] : starts[i + 1]]
        assert sum(part) == pytest.approx(weight / sum(weights))
        assert len(set(part)) == 1


@pytest.mark.parametrize(("workers", "later_workers"), [(0, 2), (2, 0)])
def test_resumed_stream_equals_the_uninterrupted_one(make_source, workers, later_workers):
    patch_size = (6, 8, 8)
    arguments = {"transforms": training_transforms(patch_size), "initial_patch_size": (8, 10, 10)}
    sources = [make_source("a", [(9, 10, 11)] * 2, label=1), make_source("b", [(5, 6, 7)])]
    whole = take(PatchStream(sources, 2, patch_size, seed=1, **arguments), 6)
    stream = PatchStream(sources, 2, patch_size, seed=1, num_workers=workers, **arguments)
    resumed = PatchStream(sources, 2, patch_size, seed=99, num_workers=later_workers, **arguments)
    try:
        assert equal(take(stream, 2), whole[:2])
        state = stream.state_dict()
        assert all(type(value) is int for value in state.values())
        assert equal(take(stream, 1), whole[2:3])
        take(resumed, 1)
        resumed.load_state_dict(state)
        assert equal(take(resumed, 4), whole[2:])
        assert not torch.equal(whole[0], whole[1])
    finally:
        stream.close()
        resumed.close()


def test_seed_and_rank_decide(make_source):
    source = make_source("a", [(9, 9, 9)] * 3)
    streams = [
        PatchStream([source], 2, (3, 3, 3), seed=seed, rank=rank, world_size=2)
        for seed, rank in ((5, 0), (5, 0), (6, 0), (5, 1))
    ]
    first, same, other_seed, other_rank = (take(stream, 3) for stream in streams)
    assert equal(first, same)
    assert not any(torch.equal(a, b) for a, b in itertools.product(first, other_seed + other_rank))
    assert streams[0].state_dict() == streams[3].state_dict()


def generator_states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_random_numbers_of_the_training_are_left_alone(make_source, workers):
    transforms = training_transforms((4, 4, 4))
    stream = PatchStream(
        [make_source("a", [(9, 9, 9)])], 2, (4, 4, 4), transforms=transforms, seed=0, num_workers=workers
    )
    before = generator_states()
    take(stream, 2)
    stream.close()
    assert generator_states() == before


def test_seeded_decides_all_three_generators_and_restores_them_after_an_error():
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.random(), torch.rand(()).item()

    before = generator_states()
    draws = []
    for numbers in ((1, 2), (1, 2), (1, 3)):
        with pytest.raises(KeyError), seeded(*numbers):
            draws.append(draw())
            raise KeyError
    assert generator_states() == before
    assert draws[0] == draws[1]
    assert all(a != b for a, b in zip(draws[0], draws[2], strict=True))


def test_close_stops_the_workers_twice_and_in_the_middle(make_source):
    source = make_source("a", [(9, 9, 9)])
    stream = PatchStream([source], 2, (3, 3, 3), seed=0, num_workers=2)
    stream.close()
    whole = take(PatchStream([source], 2, (3, 3, 3), seed=0), 2)
    assert equal(take(stream, 1), whole[:1])
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    stream.close()
    stream.close()
    assert not any(worker.is_alive() for worker in workers)
    assert equal(take(stream, 1), whole[1:])
    stream.close()


def test_nothing_to_draw_from():
    with pytest.raises(UsageError, match="no data set to draw patches from"):
        PatchStream([], 2, (3, 3, 3), seed=0)
    with pytest.raises(UsageError, match="here has no case"):
        PatchSource(Path("here"), ())
    with pytest.raises(UsageError, match="share 0 of here in the mix must be above 0"):
        PatchSource(Path("here"), ("a",), 0)
