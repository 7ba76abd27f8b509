"""Look for what can keep nnU-Net and the trainers of nnunet_ext from working here, and say how to repair it.

  nnunet_ext doctor
  nnunet_ext doctor --json > doctor.json      to attach to a question

Prints one finding per line (ok, warning, error), each that is not ok with the line that repairs it. Changes nothing.
Exit code 1 if there is an error, else 0. Takes up to a minute, since torch and nnU-Net are really imported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext.cli.env import VARIABLE, trainer_folder
from nnunet_ext.utilities.errors import UsageError

if TYPE_CHECKING:
    from nnunet_ext.utilities.diagnosis import Finding
    from nnunet_ext.utilities.probe import Probe

HELP = "find out why it does not work, and how to repair it"
PYTHON_NEEDED = ">=3.10"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Format, and how long to wait."""
    parser.add_argument("--json", action="store_true", help="all findings as JSON")
    parser.add_argument(
        "--timeout", type=float, default=180, metavar="S", help="longest import in seconds [%(default)s]"
    )


def run(args: argparse.Namespace) -> int:
    """Print the findings as they come."""
    if not args.timeout > 0:
        raise UsageError(f"--timeout {args.timeout:g} must be more than 0 seconds")
    findings = []
    if not (args.json or args.quiet):
        print("importing torch and nnU-Net in the background; this takes up to a minute", file=sys.stderr)
    for finding in diagnose(args.timeout):
        findings.append(finding)
        if not args.json and (finding.level == "error" or not args.quiet):
            print(as_text(finding), flush=True)
    errors, warnings = (sum(finding.level == level for finding in findings) for level in ("error", "warning"))
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=4))
    elif not args.quiet:
        print(
            f"{_count(errors, 'error')}, {_count(warnings, 'warning')}" + (": repair them from the top" * bool(errors))
        )
    return int(errors > 0)


def as_text(finding: Finding) -> str:
    """``level  name: text``, and below it the remedy."""
    line = f"{finding.level:<8} {finding.name}: {finding.text}"
    return f"{line}\n         fix: {finding.remedy}" if finding.remedy else line


def diagnose(timeout: float) -> Iterator[Finding]:
    """All findings about this process's environment: quick ones first, while fresh processes import the libraries."""
    from nnunet_ext.settings.registry import SETTINGS
    from nnunet_ext.utilities.diagnosis_libraries import check_trainers
    from nnunet_ext.utilities.probe import run_probe

    with ThreadPoolExecutor(2) as pool:
        libraries = pool.submit(run_probe, ["libraries"], timeout)
        trainers = pool.submit(run_probe, ["trainers", *SETTINGS], timeout)
        findings = []
        for finding in chain(_versions(), _machine()):
            findings.append(finding)
            yield finding
        findings += (imports := _imports(libraries.result()))
        yield from imports
        errors = any(finding.level == "error" for finding in findings)
        yield from check_trainers(trainers.result(), SETTINGS, errors_above=errors)
        yield from _gpu(libraries.result())


def _versions() -> Iterator[Finding]:
    from nnunet_ext.utilities.diagnosis import check_python
    from nnunet_ext.utilities.diagnosis_libraries import check_version, installed_version, required_range

    yield check_python(platform.python_version(), PYTHON_NEEDED)
    yield check_version("nnunetv2", installed_version("nnunetv2"), required_range("nnunetv2", ["nnunet-ext"]))
    yield check_version("torch", installed_version("torch"), required_range("torch", ["nnunet-ext", "nnunetv2"]))


def _machine() -> Iterator[Finding]:
    from nnunet_ext.utilities import diagnosis

    environment = os.environ
    for variable, write in diagnosis.FOLDER_VARIABLES.items():
        yield diagnosis.check_folder(variable, environment.get(variable), write=write)
    yield from diagnosis.check_trainer_path(environment.get(VARIABLE), trainer_folder())
    for variable in diagnosis.FOLDER_VARIABLES:
        folder = Path(environment.get(variable) or "")
        if environment.get(variable) and folder.is_dir():
            yield diagnosis.check_disk(f"disk of {variable}", folder)
    yield diagnosis.check_temporary_folder()
    yield from diagnosis.check_shared_memory(Path("/dev/shm"))
    workers = environment.get("nnUNet_n_proc_DA")
    yield diagnosis.check_workers(diagnosis.usable_processors(), os.cpu_count() or 1, workers)


def _imports(libraries: Probe) -> list[Finding]:
    from nnunet_ext.utilities.diagnosis_libraries import check_imports

    return check_imports(libraries, _installed(), has_driver=_has_driver())


def _gpu(libraries: Probe) -> Iterator[Finding]:
    from nnunet_ext.utilities import diagnosis_libraries as diagnosis

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    yield from diagnosis.check_gpu(libraries, has_driver=_has_driver(), visible=visible, installed=_installed())
    yield from diagnosis.check_mixed_precision(libraries)
    named = os.environ.get("CC")  # as triton looks for it
    compiler = shutil.which(named) if named else shutil.which("gcc") or shutil.which("clang")
    headers = (Path(sysconfig.get_path("include")) / "Python.h").is_file()
    yield diagnosis.check_compile(libraries, os.environ.get("nnUNet_compile"), compiler, headers=headers)


def _has_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def _installed() -> dict[str, str | None]:
    from nnunet_ext.utilities.diagnosis_libraries import installed_version
    from nnunet_ext.utilities.probe import LIBRARIES

    return {name: installed_version(name) for name in LIBRARIES}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)
