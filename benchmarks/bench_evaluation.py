"""Surface metrics of a 128 x 512 x 512 pair with 2 % foreground: CPU time and memory, each case in its own process.

    python benchmarks/bench_evaluation.py                 # all cases, about two minutes
    python benchmarks/bench_evaluation.py --case A voxels

Pairs:
    voxels   every voxel foreground with probability 0.02: all surface, the most there can be
    lesions  ellipsoids of 8 to 24 mm; the prediction has them moved and resized, misses some and invents others
Cases:
    A        ours, definition A: HD95, ASSD, NSD (and the other surface metrics) from one pair of directed distances
    monai    MONAI's compute_hausdorff_distance, compute_average_surface_distance and compute_surface_dice
    C        ours, definition C
    dense    definition C by distance maps of the whole image, as surface-distance computes it
    folder   `nnunet_ext evaluate` on 20 such pairs with 2 workers: memory of all its processes together

Memory is the peak resident set above that of the process with both masks and all libraries loaded.
Exit code 1 if a goal is missed: A 1/4 of the time and 1/5 of the memory of monai, C 1/4 and 1/8 of dense, folder 2 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import correlate, distance_transform_edt

from nnunet_ext.evaluation.surface import surface_distances, surface_metrics, weighted_percentile
from nnunet_ext.evaluation.surfels import areas

SHAPE, SPACING, SHARE, TOLERANCE = (128, 512, 512), (3.0, 0.8, 0.8), 0.02, 3.0
PAIRS, CASES = ("voxels", "lesions"), ("A", "monai", "C", "dense")
GOALS = {("A", "monai"): (1 / 4, 1 / 5), ("C", "dense"): (1 / 4, 1 / 8)}
NUM_CASES, FOLDER_GOAL_GB = 20, 2.0
Masks = tuple[np.ndarray, np.ndarray]


def scattered_voxels(generator: np.random.Generator) -> Masks:
    """Two independent masks."""
    reference, prediction = (generator.random(SHAPE, dtype=np.float32) < SHARE for _ in range(2))
    return reference, prediction


def scattered_lesions(generator: np.random.Generator) -> Masks:
    """Lesions, and what a fair segmentation makes of them: 15 % missed, 15 % invented."""
    reference, prediction = np.zeros(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool)
    while reference[:, ::8, ::8].mean() < SHARE:  # a sample is enough to stop by
        for _ in range(20):
            centre, radius = generator.uniform(0, SHAPE), generator.uniform(4, 12, 3)
            fate = generator.random()
            if fate > 0.13:
                _add_ellipsoid(reference, centre, radius)
            if fate < 0.87:
                _add_ellipsoid(prediction, centre + generator.normal(0, 1, 3), radius * generator.uniform(0.8, 1.2))
    return reference, prediction


def _add_ellipsoid(mask: np.ndarray, centre: np.ndarray, radius_mm: np.ndarray) -> None:
    radius = radius_mm / SPACING
    low = np.maximum(np.floor(centre - radius).astype(int), 0)
    high = np.minimum(np.ceil(centre + radius).astype(int) + 1, SHAPE)
    axes = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    inside = sum(((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radius, strict=True)) <= 1
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] |= inside


MAKE: dict[str, Callable[[np.random.Generator], Masks]] = {"voxels": scattered_voxels, "lesions": scattered_lesions}


def ours(definition: str, masks: Masks) -> dict[str, float]:
    """All surface metrics by `definition`."""
    distances = surface_distances(*masks, SPACING, definition)
    return surface_metrics(distances, TOLERANCE, definition)


def monai(masks: Masks) -> dict[str, float]:
    """The three public functions, which find surfaces and distances anew each."""
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    reference, prediction = (torch.from_numpy(mask[None, None]) for mask in masks)
    options = {"include_background": True, "spacing": SPACING}
    return {
        "HD95": compute_hausdorff_distance(prediction, reference, percentile=95, **options).item(),
        "ASSD": compute_average_surface_distance(prediction, reference, symmetric=True, **options).item(),
        "NSD": compute_surface_dice(prediction, reference, class_thresholds=[TOLERANCE], **options).item(),
    }


def dense(masks: Masks) -> dict[str, float]:
    """Codes, distance maps and areas for every voxel of the image."""
    kernel = np.array([[[128, 64], [32, 16]], [[8, 4], [2, 1]]])
    codes = [correlate(np.pad(mask, 1).astype(np.uint8), kernel, mode="constant", cval=0) for mask in masks]
    borders = [(code != 0) & (code != 255) for code in codes]
    maps = [distance_transform_edt(~border, sampling=SPACING) for border in borders]
    area_maps = [areas(SPACING)[code] for code in codes]
    there, back = maps[0][borders[1]], maps[1][borders[0]]
    there_areas, back_areas = area_maps[1][borders[1]], area_maps[0][borders[0]]
    total = there_areas.sum() + back_areas.sum()
    return {
        "HD95": max(weighted_percentile(there, there_areas, 95), weighted_percentile(back, back_areas, 95)),
        "ASSD": (there @ there_areas + back @ back_areas) / total,
        "NSD": (there_areas[there <= TOLERANCE].sum() + back_areas[back <= TOLERANCE].sum()) / total,
    }


RUN: dict[str, Callable[[Masks], dict[str, float]]] = {
    "A": lambda masks: ours("A", masks),
    "C": lambda masks: ours("C", masks),
    "monai": monai,
    "dense": dense,
}


def run_case(case: str, pair: str) -> None:
    """Run one case in this process; print its CPU seconds, MiB above the start, and metrics as JSON."""
    small = tuple(mask[:8, :32, :32] for mask in scattered_voxels(np.random.default_rng(1)))
    masks = MAKE[pair](np.random.default_rng(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        RUN[case](small)  # loads what it needs
        if case == "monai":
            import torch

            torch.set_num_threads(1)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before, started = _memory("VmRSS"), time.process_time()
        metrics = RUN[case](masks)
    seconds = time.process_time() - started
    chosen = {name: metrics[name] for name in ("HD95", "ASSD", "NSD")}
    print(json.dumps({"seconds": seconds, "mib": _memory("VmHWM") - before, "metrics": chosen}))


def _memory(field: str, process: str = "self") -> float:
    """MiB of a line of ``/proc/PROCESS/status``; 0 for a process that has gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":")), 0.0)


def measure(case: str, pair: str) -> dict[str, float]:
    """Run a case in its own process; print and return what it reports."""
    command = [sys.executable, __file__, "--case", case, pair]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in result["metrics"].items())
    print(f"{pair:8s} {case:6s} {result['seconds']:6.2f} CPU-s  {result['mib']:7.0f} MiB   {metrics}", flush=True)
    return {"seconds": result["seconds"], "mib": result["mib"]}


def write_folder(folder: Path) -> None:
    """20 pairs as an nnU-Net user has them, compressed; four different ones, five times each."""
    import SimpleITK

    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    for number in range(NUM_CASES):
        masks = MAKE[PAIRS[number % 2]](np.random.default_rng(number // 2 % 2))
        for sub, mask in zip(("labelsTr", "predictions"), masks, strict=True):
            (folder / sub).mkdir(exist_ok=True)
            image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
            image.SetSpacing(SPACING[::-1])
            SimpleITK.WriteImage(image, str(folder / sub / f"case_{number:02d}.nii.gz"), True, 1)


def evaluate_folder() -> float:
    """Peak resident MiB of the command and its workers, sampled ten times a second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folder(folder)
        command = [sys.executable, "-m", "nnunet_ext.cli.main", "evaluate", "labelsTr", "predictions", "-np", "2"]
        started, peak = time.perf_counter(), 0.0
        process = subprocess.Popen([*command, "--quiet"], cwd=folder)
        while process.poll() is None:
            peak = max(peak, sum(_memory("VmRSS", pid) for pid in _family(process.pid)))
            time.sleep(0.1)
        if process.returncode:
            raise SystemExit(f"{command} failed with exit code {process.returncode}")
    print(f"folder   {NUM_CASES} cases, 2 workers: {peak:.0f} MiB, {time.perf_counter() - started:.0f} s", flush=True)
    return peak


def _family(pid: int) -> Iterator[str]:
    """A process and all that descend from it."""
    yield str(pid)
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for child in children.read_text().split() if children.is_file() else ():
        yield from _family(int(child))


def main() -> int:
    """Run one case, or all and check the goals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--case", nargs="+", metavar="CASE PAIR", help="one case on one pair, in this process; or folder"
    )
    arguments = parser.parse_args()
    if arguments.case not in (None, ["folder"], *([case, pair] for case in CASES for pair in PAIRS)):
        parser.error(f"--case takes folder, or one of {', '.join(CASES)} and one of {', '.join(PAIRS)}")
    os.environ["OMP_NUM_THREADS"] = "1"
    if arguments.case and arguments.case != ["folder"]:
        run_case(*arguments.case)
        return 0
    missed = []
    for pair in PAIRS if not arguments.case else ():
        results = {case: measure(case, pair) for case in CASES}
        for (case, peer), goals in GOALS.items():
            ratios = [results[case][what] / results[peer][what] for what in ("seconds", "mib")]
            print(f"{pair:8s} {case} / {peer}: time 1/{1 / ratios[0]:.1f}, memory 1/{1 / ratios[1]:.1f}")
            missed += [f"{case} / {peer} on {pair}"] if any(r > g for r, g in zip(ratios, goals, strict=True)) else []
    if evaluate_folder() / 1024 > FOLDER_GOAL_GB:
        missed.append("folder")
    print("missed: " + ", ".join(missed) if missed else "all goals met")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
