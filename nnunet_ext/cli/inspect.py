"""Show a trainer's network before paying for it: parameters, GFLOP, saved activations, shapes.

nnunet_ext inspect -tr UCITrainer --paper
nnunet_ext inspect -tr RDCLTrainer --paper 2d
nnunet_ext inspect -tr UCITrainer -d 115 -c 3d_fullres -p nnUNetPlans --json
"""

from __future__ import annotations

import argparse
import json

from nnunet_ext.settings.registry import SETTINGS
from nnunet_ext.utilities.errors import UsageError

HELP = "show a trainer's network: parameters, GFLOP, memory, shapes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A trainer, and either the paper's sizes or a plan."""
    parser.add_argument("-tr", required=True, choices=list(SETTINGS), help="trainer")
    parser.add_argument(
        "--paper",
        nargs="?",
        const="3d",
        choices=("3d", "2d"),
        help="the paper's own sizes and literal settings, of its 3D network or, where it has one, its 2D network [3d]",
    )
    parser.add_argument("-d", help="data set name or ID")
    parser.add_argument("-c", default="3d_fullres", help="configuration [3d_fullres]")
    parser.add_argument("-p", default="nnUNetPlans", help="plans [nnUNetPlans]")
    parser.add_argument(
        "--classes", type=int, help="image-level classes, where no data set decides (UCI: X-ray labels)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the report of one network."""
    if (args.paper is None) == (args.d is None):
        raise UsageError("inspect needs either --paper or -d DATASET")
    import torch

    from nnunet_ext.trainers.find import trainer_class

    trainer = trainer_class(args.tr)
    with torch.device("meta"):
        if args.paper:
            inspect = trainer.inspect_paper if args.paper == "3d" else trainer.inspect_paper_2d
            report = inspect(args.classes)
        else:
            from nnunet_ext.utilities.datasets import preprocessed_folder
            from nnunet_ext.utilities.files import load_json
            from nnunet_ext.utilities.plans import load_plans

            dataset_json = load_json(preprocessed_folder(args.d) / "dataset.json")
            report = trainer.inspect_plan(load_plans(args.d, args.p), args.c, dataset_json, args.classes)
    print(json.dumps(report.to_dict(), indent=2) if args.json else report)
    return 0
