"""Compare predictions with references: DSC, IoU, SEN, SPE, PPV, HD, HD95, ASD, ASSD, NSD per case and class.

  nnunet_ext evaluate $nnUNet_raw/Dataset115_X/labelsTs PREDICTIONS

writes metrics.csv and evaluation.json (summary and definitions) to PREDICTIONS, or to -o, and prints a table.
Distances are in mm between edge voxels (definition A, as MONAI). Both masks empty: left out and counted. One empty:
DSC and NSD are 0, distances infinite.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

HELP = "overlap and surface metrics of a folder of predictions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two folders, and how to compare them."""
    parser.add_argument("reference", type=Path, metavar="GT", help="folder of reference segmentations")
    parser.add_argument("prediction", type=Path, metavar="PRED", help="folder of predicted segmentations")
    parser.add_argument("-o", type=Path, metavar="FOLDER", help="where to write the results [PRED]")
    parser.add_argument("-np", type=int, default=min(8, os.cpu_count() or 1), help="worker processes [%(default)s]")
    parser.add_argument("--tolerance", type=float, default=3.0, metavar="MM", help="tolerance of NSD [%(default)s mm]")
    parser.add_argument("--dataset-json", type=Path, metavar="FILE", help="labels and file ending [found by itself]")
    missing = parser.add_mutually_exclusive_group()
    missing.add_argument("--allow-missing", action="store_true", help="score cases without a prediction as empty ones")
    missing.add_argument("--only-predicted", action="store_true", help="leave out cases without a prediction")


def run(args: argparse.Namespace) -> int:
    """Evaluate, write, print."""
    from nnunet_ext.evaluation.evaluate import evaluate_folders

    result = evaluate_folders(
        args.reference,
        args.prediction,
        dataset_json=args.dataset_json,
        tolerance_mm=args.tolerance,
        num_processes=args.np,
        allow_missing=args.allow_missing,
        only_predicted=args.only_predicted,
        quiet=args.quiet,
    )
    written = result.save(args.o or args.prediction)
    if not args.quiet:
        if args.only_predicted:
            print(f"--only-predicted: restricted to the {len(result.cases)} cases that have a prediction")
        if result.missing:
            print(f"--allow-missing: {len(result.missing)} cases scored as empty: {', '.join(result.missing)}")
        print(result.table())
        print("wrote " + " and ".join(str(path) for path in written))
    return 0
