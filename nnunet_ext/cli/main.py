"""``nnunet_ext COMMAND``: one thin module per command, imported only when its name or its help is asked for."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from nnunet_ext import __version__
from nnunet_ext.utilities.errors import UsageError

COMMANDS = (
    "env",
    "convert",
    "link",
    "plan",
    "check",
    "inspect",
    "predict",
    "classify",
    "explain",
    "evaluate",
    "compare",
    "classification-metrics",
    "report",
    "doctor",
    "phantom",
    "demo",
)


REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR)


def build_parser(commands: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser with the sub-parsers of `commands`."""
    parser = argparse.ArgumentParser(
        prog="nnunet_ext",
        description="Learning from more than the target images and labels, as nnU-Net v2 trainers. Train and predict"
        " with nnUNetv2_train -tr UCITrainer and nnUNetv2_predict; these commands do the rest.",
    )
    parser.add_argument("--version", action="version", version=f"nnunet_ext {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in commands:
        module = import_module(f"nnunet_ext.cli.{name.replace('-', '_')}")
        subparser = subparsers.add_parser(name, help=module.HELP, description=module.__doc__)
        subparser.formatter_class = argparse.RawDescriptionHelpFormatter
        module.add_arguments(subparser)
        subparser.add_argument("--quiet", action="store_true", help="no progress bars, errors only")
        subparser.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns: its exit code; 1 with one line on stderr for input that cannot be used or a place that cannot be written,
        130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    named = [arguments[0]] if arguments and arguments[0] in COMMANDS else COMMANDS
    args = build_parser(named).parse_args(arguments)
    try:
        return int(args.run(args))
    except UsageError as error:
        print(f"nnunet_ext {args.command}: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # head or less have read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at exit
        return 0
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        where = error.filename or "a file could not be written"
        fix = "make room or name another place, and run it again; no file was left half-written"
        print(f"nnunet_ext {args.command}: error: {error.strerror}: {where}; {fix}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"nnunet_ext {args.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
