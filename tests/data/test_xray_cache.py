import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nnunet_ext.data import xray_cache_building
from nnunet_ext.data.xray_cache import linked_xray_caches, open_xray_cache
from nnunet_ext.data.xray_cache_building import build_xray_cache, grey_statistics
from nnunet_ext.data.xray_image import read_xray
from nnunet_ext.utilities.errors import UsageError


def build(identifier: int = 700, size: int = 16) -> Path:
    return build_xray_cache(identifier, size, quiet=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_cache_holds_the_images_and_the_table(make_xrays):
    raw = make_xrays(number=10)
    build()
    cache = open_xray_cache(700)
    assert cache.images.shape == (10, 16, 16)
    assert cache.images.dtype == np.uint8
    assert isinstance(cache.images, np.memmap)
    assert np.array_equal(cache.images[3], read_xray(raw / "imagesTr/x003.png", 16))
    assert cache.labels.tolist() == [[1, 0], [0, 1]] * 5
    assert (cache.name, cache.task, cache.classes) == ("Dataset700_Xrays", "multiclass", ("healthy", "covid"))
    assert cache.splits == ("train",) * 4 + ("val",) + ("train",) * 4 + ("val",)
    assert cache.patients[7] == "p7"
    assert cache.image_names[7] == "imagesTr/x007.png"
    assert cache.megabytes == pytest.approx(10 * 256 / 1e6)


def test_statistics_are_those_of_the_training_images(make_xrays):
    make_xrays()
    build()
    cache = open_xray_cache(700)
    train = np.array(cache.images)[cache.indices("train")] / 255
    assert (cache.mean, cache.std) == pytest.approx((train.mean(), train.std()))


def test_statistics_by_hand():
    images = np.array([[[0, 255]], [[51, 51]], [[255, 255]]], dtype=np.uint8)
    mean, std = grey_statistics(images, np.array([0, 1]))
    assert mean == pytest.approx((0 + 1 + 0.2 + 0.2) / 4)
    assert std == pytest.approx(np.std([0, 1, 0.2, 0.2]))


def test_second_build_reads_no_image_and_changes_nothing(make_xrays, monkeypatch):
    make_xrays()
    folder = build()
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.setattr(xray_cache_building, "read_xray", None)
    assert build() == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_result_does_not_depend_on_the_number_of_threads(make_xrays):
    make_xrays(number=7)
    first = contents(build())
    shutil.rmtree(build())
    assert contents(build_xray_cache(700, 16, num_processes=1, quiet=True)) == first


def test_caches_of_several_sizes(make_xrays):
    make_xrays()
    for size in (16, 24):
        build(size=size)
    assert open_xray_cache(700).side == 24
    assert open_xray_cache(700, 16).side == 16
    with pytest.raises(UsageError, match="nnunet_ext link TARGET --xray 700 --size 20"):
        open_xray_cache(700, 20)


def test_unbuilt_cache_names_the_command(make_xrays):
    make_xrays()
    with pytest.raises(UsageError, match=r"Dataset700_Xrays are not cached.*run: nnunet_ext link TARGET --xray 700$"):
        open_xray_cache(700)


@pytest.mark.parametrize("change", ["labels", "image"])
def test_stale_cache_is_refused_and_rebuilt(make_xrays, change):
    raw = make_xrays()
    build()
    if change == "labels":
        table = raw / "labels.csv"
        table.write_text(table.read_text().replace("p0,train,1,0", "p0,train,0,1"))
    else:
        shutil.copy(raw / "imagesTr/x001.png", raw / "imagesTr/x000.png")
        os.utime(raw / "imagesTr/x000.png", ns=(1, 1))
    with pytest.raises(UsageError, match=r"is stale.*run: nnunet_ext link TARGET --xray 700"):
        open_xray_cache(700)
    build()
    cache = open_xray_cache(700)
    assert cache.labels[0].tolist() == ([0, 1] if change == "labels" else [1, 0])
    assert np.array_equal(cache.images[0], cache.images[1]) == (change == "image")


def test_cache_outlives_the_raw_data(make_xrays):
    raw = make_xrays()
    build()
    shutil.rmtree(raw)
    assert len(open_xray_cache(700)) == 10


DAMAGES = {
    "cut images": lambda folder: os.truncate(folder / "images.npy", 300),
    "no images": lambda folder: (folder / "images.npy").unlink(),
    "no index": lambda folder: (folder / "index.json").unlink(),
    "cut index": lambda folder: os.truncate(folder / "index.json", 100),
    "fewer rows": lambda folder: edit_index(folder, labels=["10"]),
    "shorter column": lambda folder: edit_index(folder, patients=["p0"]),
    "old version": lambda folder: edit_index(folder, version=0),
    "key missing": lambda folder: (folder / "index.json").write_text("{}"),
}


def edit_index(folder: Path, **changes: object) -> None:
    file = folder / "index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cache_is_refused_and_rebuilt(make_xrays, damage):
    make_xrays()
    folder = build()
    whole = contents(folder)
    DAMAGES[damage](folder)
    with pytest.raises(UsageError, match=r"is damaged.*run: nnunet_ext link TARGET --xray 700"):
        open_xray_cache(700)
    assert contents(build()) == whole


def test_all_unreadable_images_are_named_and_nothing_stays(make_xrays, nnunet_folders):
    raw = make_xrays()
    (raw / "imagesTr/x002.png").write_bytes(b"not an image")
    os.truncate(raw / "imagesTr/x008.png", 300)
    with pytest.raises(UsageError) as error:
        build()
    message = str(error.value)
    assert "2 of 10 images cannot be read" in message
    assert all(f"x00{i}.png" in message for i in (2, 8))
    assert list((nnunet_folders / "nnUNet_preprocessed/Dataset700_Xrays").iterdir()) == []


def test_constant_images_are_refused(make_xrays, monkeypatch):
    make_xrays()
    monkeypatch.setattr(xray_cache_building, "read_xray", lambda _, side: np.zeros((side, side), np.uint8))
    with pytest.raises(UsageError, match="same grey value 0"):
        build()


def test_too_little_space(make_xrays, monkeypatch):
    make_xrays()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(UsageError, match=r"needs 0 MB in .*, of which 0 MB are free"):
        build()


SLOW_BUILD = """
import time
from nnunet_ext.data import xray_cache_building as building
read = building.read_xray
def slow(path, side):
    time.sleep(0.05)
    return read(path, side)
building.read_xray, building.CHUNK = slow, 2
building.build_xray_cache(700, 16, 1, quiet=True)
"""


def test_killed_build_leaves_no_cache_and_is_continued(make_xrays, nnunet_folders, monkeypatch):
    make_xrays(number=40)
    whole = contents(build())
    shutil.rmtree(build())
    with subprocess.Popen([sys.executable, "-c", SLOW_BUILD]) as process:
        deadline = time.monotonic() + 60
        while not partial_images(nnunet_folders) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    kept = partial_images(nnunet_folders)
    assert 0 < kept < 40
    with pytest.raises(UsageError, match="not cached"):
        open_xray_cache(700)

    read: list[Path] = []
    monkeypatch.setattr(xray_cache_building, "read_xray", lambda path, side: read.append(path) or read_xray(path, side))
    assert contents(build()) == whole
    assert len(read) == 40 - kept
    assert [path.name for path in (nnunet_folders / "nnUNet_preprocessed/Dataset700_Xrays").iterdir()] == [
        "nnunet_ext_xrays_16"
    ]


def test_two_builds_at_a_time_give_one_whole_cache(make_xrays, nnunet_folders):
    make_xrays(number=40)
    whole = contents(build())
    shutil.rmtree(build())
    processes = [subprocess.Popen([sys.executable, "-c", SLOW_BUILD]) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    made = contents(nnunet_folders / "nnUNet_preprocessed/Dataset700_Xrays/nnunet_ext_xrays_16")
    assert {name: made[name] for name in whole} == whole  # the slower one may leave a hidden temporary file there
    assert partial_images(nnunet_folders) == 0


def partial_images(folders: Path) -> int:
    """Whole images of 16 x 16 pixels behind the 128 bytes of header."""
    files = list(folders.glob("nnUNet_preprocessed/Dataset700_Xrays/.nnunet_ext_xrays_16.*/images.npy"))
    return max(files[0].stat().st_size - 128, 0) // 256 if files else 0


def test_what_a_killed_build_left_of_other_data_is_dropped(make_xrays, nnunet_folders):
    raw = make_xrays()
    leftover = nnunet_folders / "nnUNet_preprocessed/Dataset700_Xrays/.nnunet_ext_xrays_16.0123456789abcdef"
    leftover.mkdir(parents=True)
    (leftover / "images.npy").write_bytes(b"old")
    build()
    assert not leftover.exists()
    assert raw.exists()


LINKED = {"nnunet_ext": {"xray": [700]}}


def test_linked_caches_are_the_smallest_that_suffice(make_xrays):
    make_xrays()
    for size in (16, 24, 32):
        build(size=size)
    assert [cache.side for cache in linked_xray_caches(LINKED, "Dataset115_CT", 20)] == [24]


@pytest.mark.parametrize("dataset_json", [{}, {"nnunet_ext": {}}, {"nnunet_ext": {"xray": []}}])
def test_no_relation(dataset_json):
    with pytest.raises(
        UsageError, match="Dataset115_CT is linked to no X-ray data set; run: nnunet_ext link 115 --xray ID"
    ):
        linked_xray_caches(dataset_json, "Dataset115_CT", 16)


def test_linked_cache_unbuilt_too_small_stale_or_of_other_classes(make_xrays):
    raw = make_xrays()
    make_xrays(701, classes=("a", "b"))
    both = {"nnunet_ext": {"xray": [700, 701]}}
    with pytest.raises(UsageError, match=r"not cached.*run: nnunet_ext link 115 --xray 700 701 --size 256$"):
        linked_xray_caches(both, "Dataset115_CT", 16)
    build(700), build(701)
    with pytest.raises(
        UsageError, match=r"cached at 16 pixels.*patch of 20.*run: nnunet_ext link 115 --xray 700 --size 20$"
    ):
        linked_xray_caches(LINKED, "Dataset115_CT", 20)
    with pytest.raises(UsageError, match=r"Dataset700_Xrays.*Dataset701_Xrays.*differ in task or classes"):
        linked_xray_caches(both, "Dataset115_CT", 16)
    os.utime(raw / "imagesTr/x000.png", ns=(1, 1))
    with pytest.raises(UsageError, match=r"is stale.*run: nnunet_ext link 115 --xray 700 --size 16$"):
        linked_xray_caches(LINKED, "Dataset115_CT", 16)
