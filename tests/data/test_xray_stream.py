import itertools
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ext.data.xray_augmentation import whole_views
from nnunet_ext.data.xray_cache import XrayCache, open_xray_cache
from nnunet_ext.data.xray_cache_building import build_xray_cache
from nnunet_ext.data.xray_dataset import SPLITS
from nnunet_ext.data.xray_stream import XrayStream, pooled_mean_and_std, sample_at
from nnunet_ext.utilities.errors import UsageError

# Workers are forked on Linux up to Python 3.13, which warns of that once torch has started threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
Batch = tuple[torch.Tensor, torch.Tensor]
NEUTRAL = {"min_scale": 1.0, "flip": False, "rotation": 0.0}


@pytest.fixture
def cached(make_xrays):
    def make(identifier: int = 700, **arguments: object) -> XrayCache:
        make_xrays(identifier, **arguments)
        build_xray_cache(identifier, 16, quiet=True)
        return open_xray_cache(identifier)

    return make


def take(stream: XrayStream, number: int) -> list[Batch]:
    return list(itertools.islice(stream, number))


def equal(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, y) for x, y in zip(itertools.chain(*a), itertools.chain(*b), strict=True)
    )


def test_shapes_and_labels(cached):
    multiclass = next(XrayStream([cached(700)], 3, (12, 14), seed=0))
    multilabel = next(XrayStream([cached(701, task="multilabel")], 3, (12, 14), seed=0))
    for images, _ in (multiclass, multilabel):
        assert images.shape == (3, 1, 12, 14)
        assert images.dtype == torch.float32
    assert multiclass[1].shape == (3,)
    assert multiclass[1].dtype == torch.int64
    assert multilabel[1].shape == (3, 2)
    assert multilabel[1].dtype == torch.float32


def test_neutral_stream_shows_every_training_image_once_per_epoch_with_its_label(cached):
    cache = cached(number=10)
    train = cache.indices("train")
    expected = whole_views(cache.images[train], (16, 16), cache.mean, cache.std)
    stream = XrayStream([cache], 4, (16, 16), seed=3, **NEUTRAL)
    orders = []
    for _ in range(3):
        images, labels = (torch.cat(parts) for parts in zip(*take(stream, 2), strict=True))
        order = [int((expected - image).abs().amax((1, 2, 3)).argmin()) for image in images]
        assert all(torch.allclose(image, expected[i], atol=1e-4) for image, i in zip(images, order, strict=True))
        assert labels.tolist() == cache.labels[train][order].argmax(1).tolist()
        assert sorted(order) == list(range(8))
        orders.append(tuple(order))
    assert len(set(orders)) == 3


def test_images_are_normalised_and_augmented_anew_in_every_epoch(cached):
    cache = cached(number=1)
    batches = take(XrayStream([cache], 1, (16, 16), seed=3), 3)
    assert not torch.equal(batches[0][0], batches[1][0])
    many = torch.cat([images for images, _ in take(XrayStream([cache], 8, (16, 16), seed=3), 20)])
    assert abs(many.mean()) < 0.2
    assert 0.5 < many.std() < 1.2  # interpolation smooths the noise that the images are


def test_seed_decides(cached):
    cache = cached()
    first, same, other = (take(XrayStream([cache], 4, (16, 16), seed=seed), 3) for seed in (5, 5, 6))
    assert equal(first, same)
    assert not equal(first, other)


@pytest.mark.parametrize(("workers", "later_workers"), [(0, 0), (0, 2), (2, 0), (2, 2)])
def test_resumed_stream_equals_the_uninterrupted_one(cached, workers, later_workers):
    cache = cached(number=7)
    whole = take(XrayStream([cache], 4, (16, 16), seed=1), 8)
    stream = XrayStream([cache], 4, (16, 16), seed=1, num_workers=workers)
    resumed = XrayStream([cache], 4, (16, 16), seed=99, num_workers=later_workers)
    try:
        assert equal(take(stream, 3), whole[:3])
        state = stream.state_dict()
        assert all(type(value) is int for value in state.values())
        assert equal(take(stream, 1), whole[3:4])
        take(resumed, 1)
        resumed.load_state_dict(state)
        assert equal(take(resumed, 5), whole[3:])
    finally:
        stream.close()
        resumed.close()


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 8), st.integers(0, 2**40))
def test_ranks_share_each_epoch_without_overlap(number, world_size, batch_size, seed):
    batches = 1 + 3 * number // batch_size
    places = [
        [sample_at(place, seed, number) for place in range(rank, batches * batch_size * world_size, world_size)]
        for rank in range(world_size)
    ]
    samples = list(itertools.chain(*places))
    assert len(set(samples)) == len(samples)
    for epoch in range(max(epoch for epoch, _ in samples)):
        assert sorted(index for e, index in samples if e == epoch) == list(range(number))


def test_two_ranks_give_the_batch_of_one_rank(cached):
    cache = cached(number=9)
    single = XrayStream([cache], 6, (16, 16), seed=2)
    pair = [XrayStream([cache], 3, (16, 16), seed=2, rank=rank, world_size=2) for rank in range(2)]
    for _ in range(4):
        images, labels = next(single)
        parts = [next(stream) for stream in pair]
        assert not torch.equal(parts[0][0], parts[1][0])
        for rank, part in enumerate(parts):
            assert torch.equal(part[0], images[rank::2])
            assert torch.equal(part[1], labels[rank::2])
    assert pair[0].state_dict() == pair[1].state_dict() == single.state_dict()


def test_fewer_images_than_the_batch(cached):
    cache = cached(number=2)
    images, labels = next(XrayStream([cache], 5, (16, 16), seed=0, **NEUTRAL))
    assert len(images) == 5
    assert sorted(labels[:4].tolist()) == [0, 0, 1, 1]


def test_several_data_sets(cached):
    caches = [cached(700, number=3), cached(701, number=5)]
    images, _ = next(XrayStream(caches, 7, (16, 16), seed=0, **NEUTRAL))
    mean, std = pooled_mean_and_std(caches)
    train = np.concatenate([cache.images[cache.indices("train")] for cache in caches]) / 255
    assert (mean, std) == pytest.approx((train.mean(), train.std()))
    expected = sorted(((train - mean) / std).mean((1, 2)).tolist())
    assert sorted(images.mean((1, 2, 3)).tolist()) == pytest.approx(expected, abs=1e-4)


def test_data_sets_of_other_classes_are_refused(cached):
    caches = [cached(700), cached(701, classes=("a", "b"))]
    with pytest.raises(UsageError, match=r"Dataset700_Xrays.*Dataset701_Xrays"):
        XrayStream(caches, 2, (16, 16), seed=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_random_numbers_of_the_training_are_left_alone(cached, workers):
    stream = XrayStream([cached()], 2, (16, 16), seed=0, num_workers=workers)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    take(stream, 3)
    stream.close()
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_cache_pickles_without_its_images(cached):
    cache = cached(number=40)
    assert cache.images.size == 40 * 256
    content = pickle.dumps(cache)
    assert len(content) < 5000
    assert np.array_equal(pickle.loads(content).images, cache.images)


def test_spawned_workers_give_the_same_batches(cached):
    cache = cached()
    stream = XrayStream([cache], 4, (16, 16), seed=1, num_workers=1, start_method="spawn")
    try:
        assert equal(take(stream, 3), take(XrayStream([cache], 4, (16, 16), seed=1), 3))
    finally:
        stream.close()


def test_close_stops_the_workers_twice_and_in_the_middle(cached):
    cache = cached()
    stream = XrayStream([cache], 4, (16, 16), seed=1, num_workers=2)
    stream.close()
    whole = take(XrayStream([cache], 4, (16, 16), seed=1), 3)
    assert equal(take(stream, 1), whole[:1])
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    start = time.monotonic()
    stream.close()
    stream.close()
    assert time.monotonic() - start < 10
    assert not any(worker.is_alive() for worker in workers)
    assert equal(take(stream, 2), whole[1:])
    stream.close()
    assert not multiprocessing.active_children()


# torch's signal handler may raise inside somebody's __del__, where Python drops the exception.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_killed_worker_is_an_error_and_close_still_returns(cached):
    stream = XrayStream([cached()], 4, (16, 16), seed=1, num_workers=1)
    take(stream, 1)
    (worker,) = multiprocessing.active_children()
    with pytest.raises(RuntimeError, match="DataLoader worker"):  # raised by a signal handler: at once or later
        os.kill(worker.pid, signal.SIGKILL)
        take(stream, 10)
    stream.close()
    assert not multiprocessing.active_children()


@pytest.mark.real_data
def test_real_xrays(nnunet_folders):
    root = Path(os.environ.get("NNUNET_EXT_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
    folders = sorted((root / "chest_xr" / "train").glob("*"))
    if not folders:
        pytest.skip(f"no chest_xr in {root}")
    classes = [folder.name for folder in folders]
    raw = nnunet_folders / "nnUNet_raw" / "Dataset700_ChestXR"
    raw.mkdir()
    rows = [["image", "patient", "split", *classes]]
    for number, folder in enumerate(folders):
        for i, image in enumerate(sorted(folder.iterdir())[:25]):
            rows.append([str(image), image.stem, SPLITS[i % 3], *(str(int(c == number)) for c in range(len(classes)))])
    (raw / "labels.csv").write_text("\n".join(",".join(row) for row in rows) + "\n")
    block = f'{{"classification": {{"task": "multiclass", "classes": {classes}}}}}'.replace("'", '"')
    (raw / "dataset.json").write_text(f'{{"nnunet_ext": {block}}}')
    build_xray_cache(700, quiet=True)
    cache = open_xray_cache(700)
    assert cache.images.shape == (75, 256, 256)
    assert 0.3 < cache.mean < 0.7
    assert 0.1 < cache.std < 0.4
    images, labels = next(XrayStream([cache], 27, (224, 224), seed=0))
    assert images.shape == (27, 1, 224, 224)
    assert abs(images.mean()) < 0.5
    assert np.bincount(labels).tolist() == [9, 9, 9]
