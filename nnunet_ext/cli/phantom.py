"""Write synthetic chest CTs with lesion masks and synthetic chest X-rays with classes, to try everything without data.

  nnunet_ext phantom OUT --cts 10 --xrays 150 --others 40 --seed 0
  nnunet_ext convert covid19_20 OUT/covid19_20 --id 990
  nnunet_ext convert chestxr OUT/chestxr --id 991
  nnunet_ext convert msd OUT/Task90_OtherLesions --id 992

The same seed gives the same patients. See docs/explanation/phantoms.md for what they can show and what not.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from nnunet_ext.utilities.errors import UsageError

HELP = "write synthetic CTs and X-rays, to try everything without data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to, how many, how large."""
    parser.add_argument("output", type=Path, metavar="OUT", help="new or empty folder")
    parser.add_argument("--cts", type=int, default=10, metavar="N", help="CT volumes with lesion masks [10]")
    parser.add_argument("--others", type=int, default=0, metavar="N", help="CT volumes with other lesions [0]")
    parser.add_argument("--xrays", type=int, default=150, metavar="N", help="X-rays, a third of them per class [150]")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other patients [0]")
    parser.add_argument(
        "--shape", type=int, nargs=3, default=(48, 96, 96), metavar=("D", "H", "W"), help="voxels of a CT [48 96 96]"
    )
    parser.add_argument("-np", type=int, default=min(8, os.cpu_count() or 1), help="worker processes [%(default)s]")


def run(args: argparse.Namespace) -> int:
    """Write all files, or none."""
    import tempfile

    from nnunet_ext.phantom.sources import (
        OTHER_TASK,
        ct_jobs,
        other_jobs,
        write_ct,
        write_description,
        write_xray,
        xray_jobs,
    )
    from nnunet_ext.phantom.thorax import check_shape
    from nnunet_ext.utilities.parallel import run_parallel

    if args.seed < 0 or args.np < 1:
        raise UsageError(f"--seed {args.seed} must be at least 0 and -np {args.np} at least 1")
    check_shape(shape := tuple(args.shape))
    output: Path = args.output.resolve()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{args.output} is not empty; name a new folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    # Everything is made beside the output and renamed in one step.
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        folder = Path(temporary) / output.name
        folder.mkdir()
        cts = ct_jobs(folder, args.cts, args.seed, shape) + other_jobs(folder, args.others, args.seed, shape)
        run_parallel(write_ct, cts, args.np, "CTs", args.quiet)
        if args.others:
            write_description(folder, args.others)
        run_parallel(write_xray, xray_jobs(folder, args.xrays, args.seed), args.np, "X-rays", args.quiet)
        folder.replace(output)
    if not args.quiet:
        others = f", {args.others} CTs of other lesions in {OTHER_TASK}" if args.others else ""
        print(f"wrote {output}: {args.cts} CTs in covid19_20, {args.xrays} X-rays in chestxr{others}")
    return 0
