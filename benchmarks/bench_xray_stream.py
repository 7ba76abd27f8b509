"""Images per CPU-second of the X-ray stream, against decoding 1024-pixel PNGs and augmenting them in the same way.

    python benchmarks/bench_xray_stream.py

One thread, process CPU time, 224-pixel patches. The PNGs are made here: smooth shapes and a little noise, which
compress to about 0.5 MB each, like those of ChestX-ray14. Exit code 1 below the goal of 8 times.
"""

import csv
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nnunet_ext.data.xray_augmentation import XrayAugmentation, draw_view, normalise, show
from nnunet_ext.data.xray_cache import XrayCache, open_xray_cache
from nnunet_ext.data.xray_cache_building import build_xray_cache
from nnunet_ext.data.xray_stream import XrayStream

GOAL = 8
SIDE, PATCH_SIZE = 1024, (224, 224)
NUM_IMAGES, BATCH_SIZE = 32, 32


def make_xrays(folder: Path) -> None:
    """A raw X-ray data set in `folder`."""
    (folder / "imagesTr").mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = [["image", "patient", "split", "healthy", "ill"]]
    for i in range(NUM_IMAGES):
        shapes = Image.fromarray(generator.integers(0, 256, (32, 32), dtype=np.uint8))
        smooth = np.asarray(shapes.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=float)
        noisy = (smooth + generator.normal(0, 1.5, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / "imagesTr" / f"{i}.png")
        rows.append([f"imagesTr/{i}.png", str(i), "train", str(i % 2), str(1 - i % 2)])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    block = {"classification": {"task": "multiclass", "classes": ["healthy", "ill"]}}
    (folder / "dataset.json").write_text(json.dumps({"nnunet_ext": block}))


def decode_and_augment(paths: list[Path], cache: XrayCache, epoch: int) -> torch.Tensor:
    """What the stream would do without its cache."""
    images = torch.empty(len(paths), 1, *PATCH_SIZE)
    for i, path in enumerate(paths):
        view = draw_view(np.random.default_rng([epoch, i]), XrayAugmentation())
        images[i, 0] = show(np.array(Image.open(path)), view, PATCH_SIZE)
    return normalise(images, cache.mean, cache.std)


def images_per_cpu_second(make_batch: Callable[[], object], batches: int) -> float:
    """Of this process, after one batch to warm up."""
    make_batch()
    start = time.process_time()
    for _ in range(batches):
        make_batch()
    return batches * BATCH_SIZE / (time.process_time() - start)


def main() -> int:
    """Measure and print; 1 below the goal."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (Path(root) / name).mkdir()
            os.environ[name] = str(Path(root) / name)
        raw = Path(root) / "nnUNet_raw" / "Dataset700_Bench"
        make_xrays(raw)
        build_xray_cache(700, quiet=True)
        cache = open_xray_cache(700)
        paths = sorted((raw / "imagesTr").iterdir())
        kilobytes = sum(path.stat().st_size for path in paths) / len(paths) / 1e3
        stream = XrayStream([cache], BATCH_SIZE, PATCH_SIZE, seed=0)
        cached = images_per_cpu_second(lambda: next(stream), 20)
        decoded = images_per_cpu_second(lambda: decode_and_augment(paths, cache, 0), 3)
        only_decoded = images_per_cpu_second(lambda: [Image.open(path).load() for path in paths], 3)
    print(f"PNG {SIDE} x {SIDE}, {kilobytes:.0f} kB each; patch {PATCH_SIZE}; images per CPU-second:")
    print(f"  stream from the {cache.side}-pixel cache {cached:8.0f}")
    print(f"  PNG decoded, then augmented    {decoded:8.0f}: the stream is {cached / decoded:.1f} times as fast")
    print(f"  PNG decoded, nothing else      {only_decoded:8.0f}: {cached / only_decoded:.1f} times")
    return 0 if cached >= GOAL * decoded else 1


if __name__ == "__main__":
    sys.exit(main())
