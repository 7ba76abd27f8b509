"""Write one HTML page about a trained model: settings, curves, metrics, best and worst cases.

  nnunet_ext report $nnUNet_results/Dataset115_X/UCITrainer__nnUNetPlans__3d_fullres -f 0 \\
      --evaluation PREDICTIONS --images $nnUNet_raw/Dataset115_X/imagesTs -o report.html

The page is complete in itself and opens without a network. Without --evaluation it shows that of fold_X/validation,
if nnunet_ext evaluate was run there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "one HTML page: settings, curves, metrics, overlays"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, what was evaluated, and the page."""
    parser.add_argument("model_folder", type=Path, metavar="MODEL_FOLDER", help="TRAINER__PLANS__CONFIGURATION folder")
    parser.add_argument("-f", default="0", metavar="FOLD", help="fold [0]")
    parser.add_argument("--evaluation", type=Path, metavar="FOLDER", help="results of nnunet_ext evaluate")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="images of the evaluated cases, for overlays")
    parser.add_argument("--references", type=Path, metavar="FOLDER", help="their references [those evaluated]")
    parser.add_argument("-o", type=Path, default=Path("report.html"), metavar="FILE", help="the page [report.html]")


def run(args: argparse.Namespace) -> int:
    """Write the page and print its name."""
    from nnunet_ext.evaluation.report import write_report

    write_report(
        args.model_folder,
        args.o,
        fold=args.f,
        evaluation=args.evaluation,
        images=args.images,
        references=args.references,
    )
    if not args.quiet:
        print(f"wrote {args.o}")
    return 0
