"""Compare predictions with references: overlap, surface distance, volume and lesions, per case and class.

  nnunet_ext evaluate $nnUNet_raw/Dataset115_X/labelsTs PREDICTIONS
  nnunet_ext evaluate GT PRED --regions whole=1,2,3 core=2,3 --surface-definition C --nsd-tolerance 1

writes metrics.csv (a line per case and class), evaluation.json (summary and definitions) and summary.json (nnU-Net's
format; one that nnU-Net wrote itself stays) to PREDICTIONS, or to -o, and prints a table.

Both masks empty: left out and counted. One empty: DSC and NSD are 0, distances infinite. A missing, extra or
misaligned prediction is an error. An evaluation that was interrupted goes on where it stopped.

A PRED of nnunet_ext predict --all-subsets is evaluated folder by folder; a table over all subsets of the modalities is
printed and written to subsets.csv.

Surface definitions: A edge voxels, larger of the directed percentiles (as MONAI); B edge voxels, pooled percentile (as
MedPy); C area-weighted surfels (as DeepMind's surface-distance). Their numbers differ: say which you report.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

HELP = "overlap, surface, volume and lesion metrics of a folder of predictions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two folders, and how to compare them."""
    parser.add_argument("reference", type=Path, metavar="GT", help="folder of reference segmentations")
    parser.add_argument("prediction", type=Path, metavar="PRED", help="folder of predicted segmentations")
    parser.add_argument("-o", type=Path, metavar="FOLDER", help="where to write the results [PRED]")
    parser.add_argument("-np", type=int, default=min(8, os.cpu_count() or 1), help="worker processes [%(default)s]")
    parser.add_argument("--labels", nargs="+", default=[], metavar="LABEL", help="these only, by name or value [all]")
    parser.add_argument("--regions", nargs="+", default=[], metavar="NAME=1,2", help="unions of labels")
    parser.add_argument("--nsd-tolerance", type=float, default=3.0, metavar="MM", help="of NSD [%(default)s mm]")
    parser.add_argument(
        "--surface-definition", choices=("A", "B", "C"), default="A", help="surface and percentile, see above [A]"
    )
    parser.add_argument("--dataset-json", type=Path, metavar="FILE", help="labels and file ending [found by itself]")
    missing = parser.add_mutually_exclusive_group()
    missing.add_argument("--allow-missing", action="store_true", help="score cases without a prediction as empty ones")
    missing.add_argument("--only-predicted", action="store_true", help="leave out cases without a prediction")


def run(args: argparse.Namespace) -> int:
    """Evaluate, write, print."""
    from nnunet_ext.evaluation.subsets import SUBSETS_NAME

    output = args.o or args.prediction
    options = {
        "dataset_json": args.dataset_json,
        "labels": args.labels,
        "regions": args.regions,
        "tolerance_mm": args.nsd_tolerance,
        "surface_definition": args.surface_definition,
        "num_processes": args.np,
        "allow_missing": args.allow_missing,
        "only_predicted": args.only_predicted,
        "quiet": args.quiet,
    }
    if (args.prediction / SUBSETS_NAME).is_file():
        return _run_subsets(args, output, options)
    return _run_one(args, output, options)


def _run_one(args: argparse.Namespace, output: Path, options: dict[str, Any]) -> int:
    from nnunet_ext.evaluation.evaluate import evaluate_folders
    from nnunet_ext.evaluation.host_summary import write_host_summary
    from nnunet_ext.evaluation.journal import remove_journal

    result = evaluate_folders(args.reference, args.prediction, journal=output, **options)
    written = [*result.save(output), write_host_summary(result, output)]
    remove_journal(output)
    if not args.quiet:
        if args.only_predicted:
            print(f"--only-predicted: restricted to the {len(result.cases)} cases that have a prediction")
        if result.missing:
            print(f"--allow-missing: {len(result.missing)} cases scored as empty: {', '.join(result.missing)}")
        print(result.table())
        print("wrote " + ", ".join(str(path) for path in written if path is not None))
    return 0


def _run_subsets(args: argparse.Namespace, output: Path, options: dict[str, Any]) -> int:
    from nnunet_ext.evaluation.subsets import TABLE_NAME, evaluate_subsets

    table = evaluate_subsets(args.reference, args.prediction, output, **options)
    if not args.quiet:
        print(table.text())
        print(f"wrote {output / TABLE_NAME}, and the evaluation of each subset in its folder")
    return 0
