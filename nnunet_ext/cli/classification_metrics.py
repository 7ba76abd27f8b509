"""Compare predicted probabilities of images with their labels: AUC with interval, AP, sensitivity, confusion matrix.

  nnunet_ext classify -i Dataset700_ChestXR/labels.csv --split test -o out/probabilities.csv -d 115 -c 3d_fullres -f 0
  nnunet_ext classification-metrics out/probabilities.csv Dataset700_ChestXR/labels.csv --split test

prints a table and writes classification.csv (one row per class) and classification.json to the folder of the
probabilities, or to -o. Intervals are 95 %: by default DeLong's, which takes all images as independent; with
--interval bootstrap patients are resampled. Unknown labels leave their class only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.utilities.errors import UsageError

HELP = "AUC with interval, AP, sensitivity, confusion matrix of classified images"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two tables, and how to compare them."""
    parser.add_argument("probabilities", type=Path, metavar="PROBABILITIES.csv", help="what nnunet_ext classify wrote")
    parser.add_argument("labels", type=Path, metavar="LABELS.csv", help="labels.csv of a data set")
    parser.add_argument("--split", choices=("train", "val", "test"), help="only images of this split [all]")
    parser.add_argument(
        "--task", choices=("multiclass", "multilabel"), help="[dataset.json, else seen from the labels]"
    )
    parser.add_argument(
        "--interval", choices=("delong", "bootstrap"), default="delong", help="of the AUC [%(default)s]"
    )
    parser.add_argument("--threshold", type=float, default=0.5, help="probability of a positive [%(default)s]")
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap [%(default)s]")
    parser.add_argument("-o", type=Path, metavar="FOLDER", help="where to write [folder of PROBABILITIES.csv]")


def run(args: argparse.Namespace) -> int:
    """Match, score, write, print."""
    from nnunet_ext.evaluation.classification.results import CSV_NAME, IntervalSettings
    from nnunet_ext.evaluation.classification.score import score_classes
    from nnunet_ext.evaluation.classification.tables import read_scored_images, task_of_dataset

    folder = args.o or args.probabilities.parent
    if (folder / CSV_NAME).resolve() in (args.probabilities.resolve(), args.labels.resolve()):
        raise UsageError(f"{folder / CSV_NAME} is an input and would be overwritten; give another folder: -o FOLDER")
    intervals = IntervalSettings(args.interval, args.resamples, args.seed)
    images = read_scored_images(args.probabilities, args.labels, args.split)
    result = score_classes(
        images.probabilities,
        images.labels,
        images.classes,
        names=images.names,
        patients=images.patients,
        task=args.task or task_of_dataset(args.labels),
        threshold=args.threshold,
        intervals=intervals,
    )
    source = {"probabilities": str(args.probabilities), "labels": str(args.labels), "split": args.split}
    written = result.save(folder, **source, matching=images.notes)
    if not args.quiet:
        for note in images.notes:
            print(f"note: {note}")
        print(result.table())
        print("wrote " + " and ".join(str(path) for path in written))
    return 0
