"""Let nnU-Net find the trainers of nnunet_ext.

eval "$(nnunet_ext env)"     for this shell
nnunet_ext env --persist     for this Python environment, in every new shell
nnunet_ext env --forget      undo --persist
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import sysconfig
from pathlib import Path

from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path

HELP = "let nnU-Net find the trainers; check its folders"
VARIABLE = "nnUNet_extTrainer"
PTH_NAME = "nnunet_ext_trainers.pth"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--persist and --forget."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--persist", action="store_true", help="set the trainer path for this Python environment, for good"
    )
    group.add_argument("--forget", action="store_true", help="undo --persist")


def trainer_folder() -> Path:
    """The folder that holds only the shim."""
    return Path(__file__).resolve().parents[1] / "nnunet_trainers"


def trainer_path(current: str | None) -> str:
    """`current` (an ``os.pathsep`` list of folders, or None) with our folder in it, once and last."""
    folders = [folder for folder in (current or "").split(os.pathsep) if folder and folder != str(trainer_folder())]
    return os.pathsep.join([*folders, str(trainer_folder())])


def pth_file() -> Path:
    """The ``.pth`` file in this environment's site-packages."""
    return Path(sysconfig.get_path("purelib")) / PTH_NAME


def pth_line() -> str:
    """One line that only sets the variable, unless the shell has set it already."""
    return f"import os; os.environ.setdefault({VARIABLE!r}, {str(trainer_folder())!r})\n"


def run(args: argparse.Namespace) -> int:
    """Print the export, or write or remove the ``.pth`` file; warn about nnU-Net folders that are not set."""
    if args.persist or args.forget:
        _change(persist=args.persist, quiet=args.quiet)
        return 0
    print(f"export {VARIABLE}={shlex.quote(trainer_path(os.environ.get(VARIABLE)))}")
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        value = os.environ.get(variable)
        if not value:
            print(f"warning: {variable} is not set; add: export {variable}=/path/to/{variable}", file=sys.stderr)
        elif not Path(value).is_dir():
            print(f"warning: {variable}={value} is not a folder; run: mkdir -p {shlex.quote(value)}", file=sys.stderr)
    return 0


def _change(*, persist: bool, quiet: bool) -> None:
    file = pth_file()
    try:
        if persist:
            with atomic_path(file) as temporary:
                temporary.write_text(pth_line(), encoding="utf-8")
        else:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"{file} cannot be written ({error.strerror}); use a virtual environment,"
            f' or put this line into your shell\'s start-up file: eval "$(nnunet_ext env)"'
        ) from None
    if not quiet:
        done = (
            f"wrote {file}: {VARIABLE} is now set in" if persist else f"removed {file}: {VARIABLE} is no longer set in"
        )
        print(f"{done} every process of this Python environment")
    current = os.environ.get(VARIABLE)
    if persist and current and str(trainer_folder()) not in current.split(os.pathsep):
        print(
            f"warning: this shell sets {VARIABLE}={current} itself, which goes first; unset it where it is set",
            file=sys.stderr,
        )
