"""Show what a trained model has learned, as figures and tables beside it.

nnunet_ext explain relation -d 201 -c 2d -p nnUNetPlans_full -f 0
nnunet_ext explain attention -i IMAGES -d 43 -c 3d_fullres -f 0
nnunet_ext explain relation --help
"""

from __future__ import annotations

import argparse
from importlib import import_module

HELP = "show what a trained model has learned"
TOPICS = ("relation", "attention")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command per topic, each in a module ``explain_TOPIC``."""
    topics = parser.add_subparsers(dest="topic", metavar="TOPIC", required=True)
    for name in TOPICS:
        module = import_module(f"nnunet_ext.cli.explain_{name}")
        topic = topics.add_parser(name, help=module.HELP, description=module.__doc__)
        topic.formatter_class = argparse.RawDescriptionHelpFormatter
        module.add_arguments(topic)
        # Every command has --quiet before its topic; suppressed here, so that its absence does not undo that one.
        topic.add_argument("--quiet", action="store_true", default=argparse.SUPPRESS, help="errors only")
        topic.set_defaults(explain=module.run)


def run(args: argparse.Namespace) -> int:
    """Run the topic."""
    return int(args.explain(args))
