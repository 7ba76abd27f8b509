"""Show the feature relations of a model of RDCLTrainer over its training (Figs. 5 and 6 of the paper).

  nnunet_ext explain relation -d 201 -c 2d -p nnUNetPlans_full -f 0
  nnunet_ext explain relation -m MODEL_FOLDER -f 0 1 2 -o OUT

Writes relation_matrices.png (R_G(non-target), R_G(target), R_T(target) and their absolute differences, one row per
epoch that the training kept), and relation_course.png and relation_course.csv (mean distances, rank of the general
encoder's features and weight of the relation losses, for all epochs).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.cli.predict import add_folder_arguments, model_folder

HELP = "feature relations of RDCLTrainer over the epochs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which trained model, which folds, where to."""
    add_folder_arguments(parser, "RDCLTrainer", (0,), "")
    parser.add_argument(
        "-o", type=Path, metavar="OUT", help="output folder; with several folds, OUT/fold_X [explain in the fold's]"
    )


def run(args: argparse.Namespace) -> int:
    """Draw, print."""
    folder = model_folder(args)
    from nnunet_ext.evaluation.relations import read_relation_run
    from nnunet_ext.evaluation.report.model import Model

    models = [Model.open(folder, str(name)) for name in dict.fromkeys(args.f)]
    runs = [(model, read_relation_run(model)) for model in models]
    for model, relation_run in runs:
        name = f"fold_{model.fold}"
        output = model.fold_folder / "explain" if args.o is None else args.o / name if len(runs) > 1 else args.o
        written = relation_run.save(output)
        if not args.quiet:
            print(f"{name}:\n{relation_run.table()}\nwrote {', '.join(map(str, written))}")
    return 0
