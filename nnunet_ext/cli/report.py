"""Write one HTML page about trained models and evaluations: settings, curves, metrics, comparison, example cases.

  nnunet_ext report $nnUNet_results/Dataset115_X/UCITrainer__nnUNetPlans__3d_fullres -f 0 \\
      --evaluation PREDICTIONS --images $nnUNet_raw/Dataset115_X/imagesTs -o report.html
  nnunet_ext report nnU-Net=PREDICTIONS_A UCI=PREDICTIONS_B --images $nnUNet_raw/Dataset115_X/imagesTs
  nnunet_ext report A B C --all-pairs --metrics DSC HD95 --strata cases.csv --by size

Give any mix of model folders and folders of nnunet_ext evaluate, with or without a NAME; several of one NAME are
repeats (seeds) or folds. With several names the others are compared with the first, as nnunet_ext compare does, on the
cases that all have. A model shows the evaluation of its fold_X/validation where no other is given for it: by
--evaluation or under its NAME.

The page is complete in itself and opens without a network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.cli.comparison_options import add_comparison_arguments, check_comparison_arguments

HELP = "one HTML page: settings, curves, metrics, comparison, overlays"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Models, evaluations, and the page."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="[NAME=]FOLDER",
        help="TRAINER__PLANS__CONFIGURATION folder, or results of nnunet_ext evaluate",
    )
    parser.add_argument("-f", default="0", metavar="FOLD", help="fold of the models [0]")
    parser.add_argument("--evaluation", type=Path, metavar="FOLDER", help="results of the only model")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="images of the evaluated cases, for overlays")
    parser.add_argument("--references", type=Path, metavar="FOLDER", help="their references [those evaluated]")
    parser.add_argument("-o", type=Path, default=Path("report.html"), metavar="FILE", help="the page [report.html]")
    add_comparison_arguments(parser.add_argument_group("comparison of several names"))


def run(args: argparse.Namespace) -> int:
    """Write the page and print its name."""
    from nnunet_ext.evaluation.report.comparison import ComparisonOptions
    from nnunet_ext.evaluation.report.page import write_report

    check_comparison_arguments(args)
    write_report(
        args.inputs,
        args.o,
        fold=args.f,
        evaluation=args.evaluation,
        images=args.images,
        references=args.references,
        options=ComparisonOptions(args.metrics, args.test, args.all_pairs, args.strata, args.by, args.bins),
    )
    if not args.quiet:
        print(f"wrote {args.o}")
    return 0
