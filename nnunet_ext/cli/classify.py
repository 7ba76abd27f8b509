"""Classify X-rays with a trained UCITrainer model: probabilities per image, and their AUCs where labels are known.

nnunet_ext classify -i FOLDER -o probabilities.csv -d 115 -c 3d_fullres -tr UCITrainer -f 0
nnunet_ext classify -i Dataset700_ChestXR/labels.csv --split test -o probabilities.csv -m MODEL_FOLDER -f 0

Intervals that heed the patients, other thresholds, a CSV of the results: nnunet_ext classification-metrics.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.cli.predict import add_model_arguments, model_folder
from nnunet_ext.utilities.errors import UsageError

HELP = "classify X-rays with a trained UCITrainer model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Input, output, which model, and which of the images."""
    parser.add_argument("-i", required=True, type=Path, help="folder of X-rays, or a labels.csv that lists them")
    parser.add_argument("-o", required=True, type=Path, help="CSV of probabilities; AUC etc. go beside it as .json")
    add_model_arguments(parser)
    parser.set_defaults(tr="UCITrainer")
    parser.add_argument("--labels", type=Path, help="labels.csv that knows the images of the folder -i")
    parser.add_argument("--split", choices=("train", "val", "test"), help="only images of this split")
    parser.add_argument("--batch-size", type=int, default=32, help="images at a time [32]")


def run(args: argparse.Namespace) -> int:
    """Write the CSV; print and write AUC etc. when there are labels."""
    if args.batch_size < 1:
        raise UsageError(f"--batch-size {args.batch_size} must be at least 1")
    if args.o.suffix != ".csv" or args.o.is_dir():
        raise UsageError(
            f"-o {args.o} is not the name of a .csv file; e.g. {args.o.with_suffix('') / 'probabilities.csv'}"
        )
    folder = model_folder(args)
    from nnunet_ext.evaluation.classification.score import score_classes
    from nnunet_ext.inference.classify import classify_images, load_classifier, write_probabilities
    from nnunet_ext.inference.trained_model import torch_device
    from nnunet_ext.inference.xrays import list_xrays
    from nnunet_ext.utilities.files import save_json

    device = torch_device(args.device)
    networks, settings = load_classifier(folder, args.f, args.chk, trust=args.trust_checkpoint)
    classes = settings.xray_classes or ()
    xrays = list_xrays(args.i, args.labels, args.split, classes)
    probabilities = classify_images(
        networks, xrays.files, settings, device=device, batch_size=args.batch_size, quiet=args.quiet
    )
    write_probabilities(args.o, xrays.names, classes, probabilities)
    if not args.quiet:
        print(f"wrote {args.o} ({len(xrays.names)} images)")
    if xrays.labels is not None:
        result = score_classes(probabilities, xrays.labels, classes)
        save_json(result.content(), args.o.with_suffix(".json"))
        if not args.quiet:
            print(result.table())
    return 0
