"""Write a plans file with settings of a trainer, and with another patch, batch or width if asked.

  nnunet_ext plan -d 115 -c 3d_fullres -p nnUNetPlans -tr UCITrainer --set num_prototypes=128 --name k128

writes nnUNetPlans_k128.json beside nnUNetPlans.json; train with -p nnUNetPlans_k128. The preprocessed data are shared.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from nnunet_ext.settings.base import PLANS_KEY
from nnunet_ext.settings.registry import SETTINGS, settings_class
from nnunet_ext.utilities.errors import UsageError

PYTHON_SPELLING = {"None": "null", "True": "true", "False": "false"}
HELP = "write a plans file with settings of a trainer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The host's -d -c -p -tr, what to change, and the name of the result."""
    parser.add_argument("-d", help="data set name or ID")
    parser.add_argument("-p", default="nnUNetPlans", help="plans to start from [nnUNetPlans]")
    parser.add_argument("-c", default="3d_fullres", help="configuration to change [3d_fullres]")
    parser.add_argument("-tr", required=True, choices=list(SETTINGS), help="trainer that the settings are for")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings, values in JSON")
    parser.add_argument("--paper", action="store_true", help="start from the paper's literal settings")
    parser.add_argument("--patch-size", nargs="+", type=int, help="patch size in voxels; the topology follows")
    parser.add_argument("--batch-size", type=int, help="batch size of the target data")
    parser.add_argument("--features", nargs="+", type=int, help="features per stage of nnU-Net's own network")
    parser.add_argument(
        "--gpu-memory",
        type=float,
        metavar="GB",
        help="plan patch and batch for so much, by nnU-Net's rule and the trainer's own network; nnU-Net's own: 8",
    )
    parser.add_argument("--name", help="suffix of the new plans file")
    parser.add_argument("--list", action="store_true", help="list the trainer's settings and their defaults")


def run(args: argparse.Namespace) -> int:
    """Write ``{plans}_{name}.json``; prints what to train with."""
    if args.list:
        print(describe(args.tr))
        return 0
    if args.d is None or args.name is None:
        raise UsageError("plan needs -d DATASET and --name NAME (or --list)")
    from nnunet_ext.utilities.plans import PlanChanges, load_plans, write_plans

    settings = settings_class(args.tr)
    overrides = (settings.literal() if args.paper else {}) | parse_settings(args.set)
    plans = load_plans(args.d, args.p)
    inherited = (plans.get(PLANS_KEY) or {}).get(args.tr, {})
    checked = settings.from_dict(inherited | overrides)
    planned = None
    if args.gpu_memory is not None:
        if args.patch_size or args.batch_size or args.features:
            raise UsageError("--gpu-memory decides patch and batch: leave --patch-size, --batch-size, --features out")
        from nnunet_ext.trainers.find import trainer_class
        from nnunet_ext.trainers.planning import fitted_configuration

        planned = fitted_configuration(args.d, plans, args.c, trainer_class(args.tr), checked, args.gpu_memory)
    changes = PlanChanges(args.c, args.patch_size, args.batch_size, args.features, planned)
    path = write_plans(args.d, args.p, args.name, args.tr, changes, overrides)
    if not args.quiet:
        if planned is not None:
            print(f"patch {planned['patch_size']}, batch {planned['batch_size']}")
        print(f"wrote {path}\ntrain with: nnUNetv2_train {args.d} {args.c} 0 -tr {args.tr} -p {path.stem}")
    return 0


def parse_settings(items: list[str]) -> dict[str, Any]:
    """``["lr=1e-3", "sizes=[1,2]", "mode=no_kc"]`` -> values parsed as JSON, as plain text where that fails.

    Raises:
        UsageError: an item without ``=``.
    """
    settings = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--set {item} is not of the form KEY=VALUE")
        value = PYTHON_SPELLING.get(value, value)
        try:
            settings[key] = json.loads(value)
        except json.JSONDecodeError:
            settings[key] = value
    return settings


def describe(trainer: str) -> str:
    """A table of a trainer's settings: name, default, allowed values, meaning."""
    lines = []
    for field in dataclasses.fields(settings_class(trainer)):
        options = field.metadata.get("options")
        allowed = f" ({', '.join(options)})" if options else ""
        lines.append(f"{field.name} = {json.dumps(field.default)}{allowed}\n    {field.metadata['help']}")
    return "\n".join(lines)
