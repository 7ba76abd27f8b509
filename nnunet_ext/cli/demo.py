"""Run the whole UCI workflow on synthetic patients: phantoms, convert, plan, preprocess, link, train, predict,
evaluate, report. Every command is shown, so that you can repeat it with your own data; commands.sh keeps them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "run the whole workflow on synthetic patients, minutes on a CPU"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to, and on which device."""
    parser.add_argument("-o", type=Path, default=Path("demo_output"), metavar="OUT", help="folder [demo_output]")
    parser.add_argument("-device", default="cpu", choices=("cpu", "cuda", "mps"), help="device [cpu]")


def run(args: argparse.Namespace) -> int:
    """Run the steps; prints the mean Dice of the held-out CTs and where the report is."""
    import signal
    import time

    from nnunet_ext.cli.env import trainer_folder
    from nnunet_ext.evaluation.results import EvaluationResult
    from nnunet_ext.phantom.demo import run_demo

    started = time.monotonic()
    folder: Path = args.o.resolve()
    # Ended from outside (a time limit, say), the demo ends its training too, as after Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run_demo(folder, args.device, trainer_folder(), args.quiet)
    finally:
        signal.signal(signal.SIGTERM, before)
    dice = EvaluationResult.load(folder / "predictions").summary()["lesion"]["DSC"]
    minutes = (time.monotonic() - started) / 60
    print(f"mean Dice of {dice['n']} held-out CTs: {dice['mean']:.3f} (all in {minutes:.1f} minutes)")
    print(f"report: {folder / 'report.html'}\ncommands: {folder / 'commands.sh'}")
    return 0
