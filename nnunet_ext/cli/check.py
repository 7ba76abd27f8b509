"""Check everything a training needs, and build its network, before the first epoch.

nnunet_ext check 115 -c 3d_fullres -tr UCITrainer -p nnUNetPlans
"""

from __future__ import annotations

import argparse
import os

from nnunet_ext.settings.registry import SETTINGS
from nnunet_ext.utilities.errors import UsageError

HELP = "check that a training can start"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of nnUNetv2_train that decide what is trained."""
    parser.add_argument("dataset", help="data set name or ID")
    parser.add_argument("-c", default="3d_fullres", help="configuration [3d_fullres]")
    parser.add_argument("-p", default="nnUNetPlans", help="plans [nnUNetPlans]")
    parser.add_argument("-tr", required=True, choices=list(SETTINGS), help="trainer")


def run(args: argparse.Namespace) -> int:
    """Raise the first thing that is wrong, else print what would be trained."""
    from nnunet_ext.cli.env import trainer_folder
    from nnunet_ext.settings.base import spelled
    from nnunet_ext.utilities.datasets import dataset_id, nnunet_folder, preprocessed_folder, relations
    from nnunet_ext.utilities.files import load_json
    from nnunet_ext.utilities.plans import load_plans

    if str(trainer_folder()) not in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep):
        raise UsageError(
            'nnU-Net cannot find the trainers yet; run: eval "$(nnunet_ext env)" (or: nnunet_ext env --persist)'
        )
    nnunet_folder("nnUNet_results")
    plans = load_plans(args.dataset, args.p)
    folder = preprocessed_folder(args.dataset)
    dataset_json = load_json(folder / "dataset.json")
    if args.c not in plans["configurations"]:
        raise UsageError(f"-c {args.c} is not in {args.p}; it has {', '.join(plans['configurations'])}")

    import torch

    from nnunet_ext.trainers.find import trainer_class

    trainer = trainer_class(args.tr)
    settings = trainer.resolve_settings(plans, dataset_json, args.c)
    data = folder / _inherited(plans, args.c, "data_identifier")
    if not data.is_dir() or not any(data.iterdir()):
        number = dataset_id(folder.name)
        raise UsageError(
            f"{data} holds no preprocessed case; run: nnUNetv2_preprocess -d {number} -c {args.c} -plans_name {args.p}"
        )
    with torch.device("meta"):
        report = trainer.inspect_plan(plans, args.c, dataset_json)
    if not args.quiet:
        print(f"{folder.name} {args.c} -tr {args.tr} -p {args.p} can start")
        changed = ", ".join(f"{key}={spelled(value)}" for key, value in settings.changed().items())
        print(f"settings that differ from the defaults: {changed or 'none'}")
        print(f"linked data: {relations(dataset_json) or 'none'}")
        print(report)
    return 0


def _inherited(plans: dict, configuration: str, key: str) -> str:  # type: ignore[type-arg]
    """A value of a configuration, or of the one that it inherits from."""
    content = plans["configurations"][configuration]
    value = content[key] if key in content else _inherited(plans, content["inherits_from"], key)
    return str(value)
