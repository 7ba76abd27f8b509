"""What can keep nnU-Net and its trainers from working on this machine: folders, disks, memory for workers, processors.

Every check takes what it judges as arguments and returns findings; it changes nothing. A remedy is a line for the shell
wherever one repairs the fault, explained behind ``#``.
"""

from __future__ import annotations

import errno
import math
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.specifiers import SpecifierSet

GIB = 1 << 30
FOLDER_VARIABLES = {"nnUNet_raw": False, "nnUNet_preprocessed": True, "nnUNet_results": True}  # whether we write there
HOST_WORKERS = 12  # what nnU-Net starts if nnUNet_n_proc_DA is not set
Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what it is called, how it is, and what repairs it (empty if `level` is ok)."""

    level: Level
    name: str
    text: str
    remedy: str = ""


def check_python(version: str, needs: str) -> Finding:
    """Python against a range such as ``>=3.10``."""
    if SpecifierSet(needs).contains(version, prereleases=True):
        return Finding("ok", "Python", version)
    remedy = f"conda create -n nnunet python=3.12 && conda activate nnunet  # or any Python {needs}; then install again"
    return Finding("error", "Python", f"{version}, but nnunet_ext needs {needs}", remedy)


def check_folder(variable: str, value: str | None, *, write: bool) -> Finding:
    """One of nnU-Net's folder variables: set, a folder, readable, and writable if `write`."""
    at_home = f'mkdir -p "$HOME/{variable}" && export {variable}="$HOME/{variable}"  # and add the export to ~/.bashrc'
    if not value:
        return Finding("error", variable, "is not set", at_home)
    if value.startswith("~"):
        expanded = f'"$HOME{value[1:]}"' if value.startswith("~/") else at_home
        fix = f"mkdir -p {expanded} && export {variable}={expanded}" if value.startswith("~/") else at_home
        return Finding("error", variable, f"{value} begins with ~, which only an unquoted shell word expands", fix)
    folder = Path(value)
    if not folder.exists():
        return Finding("error", variable, f"{value} does not exist", f"mkdir -p {shlex.quote(value)}")
    if not folder.is_dir():
        return Finding("error", variable, f"{value} is a file, not a folder", at_home)
    fault = _fault(folder, write)
    if fault:
        verb, rights = ("read and written", "rwX") if write else ("read", "rX")
        chmod = (
            f"chmod u+{rights} {shlex.quote(value)}  # if it is yours; otherwise ask its owner or choose another one"
        )
        remedy = chmod if fault.errno == errno.EACCES else at_home
        return Finding("error", variable, f"{value} cannot be {verb} ({fault.strerror})", remedy)
    if not folder.is_absolute():
        fix = f"export {variable}={shlex.quote(str(folder.resolve()))}"
        return Finding("warning", variable, f"{value} depends on the folder in which a command is started", fix)
    return Finding("ok", variable, value)


def _fault(folder: Path, write: bool) -> OSError | None:
    """Why a folder cannot be read, or written. Really writes: permission bits say little on a network."""
    try:
        next(folder.iterdir(), None)
        if write:
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        return None if error.errno == errno.ENOSPC else error  # a full disk is found by its own check
    return None


def check_trainer_path(value: str | None, shim: Path) -> list[Finding]:
    """``nnUNet_extTrainer`` must contain the folder `shim`; nnU-Net silently skips others that are absent."""
    name = "nnUNet_extTrainer"
    folders = [Path(folder) for folder in (value or "").split(os.pathsep) if folder]
    absent = [folder for folder in folders if not folder.is_dir()]
    rest = os.pathsep.join(str(folder) for folder in folders if folder not in absent)
    remove = f"export {name}={shlex.quote(rest)}"
    findings = [Finding("warning", name, f"{f} is not a folder; nnU-Net skips it", remove) for f in absent]
    if any(folder.resolve() == shim.resolve() for folder in folders):
        return [*findings, Finding("ok", name, str(value))]
    text = f"{value} does not contain {shim}" if value else "is not set, so nnU-Net does not look for our trainers"
    remedy = 'eval "$(nnunet_ext env)"  # for this shell; for good: nnunet_ext env --persist'
    return [*findings, Finding("error", name, text, remedy)]


def check_disk(name: str, folder: Path, usage: Callable[[Path], Any] = shutil.disk_usage) -> Finding:
    """Free space of the file system of a folder: a warning under 10 GiB, an error under 1 GiB."""
    try:
        free = usage(folder).free / GIB
    except OSError as error:
        return Finding("error", name, f"{folder}: {error.strerror}", f"ls -ld {shlex.quote(str(folder))}")
    text = f"{free:.1f} GiB free in {folder}"
    if free >= 10:
        return Finding("ok", name, text)
    other = "export TMPDIR=/path/with/space" if name == "disk of TMPDIR" else "move the folder to a larger disk"
    remedy = f"du -xh --max-depth=1 {shlex.quote(str(folder))} | sort -h  # delete what is not needed, or: {other}"
    return Finding("error" if free < 1 else "warning", name, text, remedy)


def check_temporary_folder(find: Callable[[], str] = tempfile.gettempdir) -> Finding:
    """The folder for temporary files: there is one, with free space."""
    try:
        return check_disk("disk of TMPDIR", Path(find()))
    except FileNotFoundError as error:
        return Finding("error", "disk of TMPDIR", str(error), "export TMPDIR=/path/to/a/writable/folder")


def check_shared_memory(folder: Path, usage: Callable[[Path], Any] = shutil.disk_usage) -> list[Finding]:
    """Size of ``/dev/shm``, through which the workers hand over batches; nothing to say where there is none (macOS)."""
    if not folder.is_dir():
        return []
    size = usage(folder).total / GIB
    text = f"{size:.2f} GiB in {folder}"
    if size >= 1:
        return [Finding("ok", "shared memory", text)]
    text += ' is little: training may stop with "Background workers are no longer alive"'
    remedy = "docker run --shm-size=8g ...  # outside Docker: sudo mount -o remount,size=8g /dev/shm"
    return [Finding("warning", "shared memory", text, remedy)]


def check_workers(processors: int, machine_processors: int, value: str | None) -> Finding:
    """Workers of data augmentation against the processors this process may use.

    Args:
        processors: that this process may use.
        machine_processors: that the machine has; nnU-Net never starts more workers.
        value: of ``nnUNet_n_proc_DA``.
    """
    name, fix = "processors", f"export nnUNet_n_proc_DA={processors}"
    try:
        wanted = HOST_WORKERS if value is None else int(value)
    except ValueError:
        wanted = -1
    if wanted < 0:
        return Finding("error", name, f"nnUNet_n_proc_DA={value} is not a whole number from 0 on", fix)
    workers = min(wanted, machine_processors)
    source = "nnU-Net's default" if value is None else f"nnUNet_n_proc_DA={value}"
    text = f"{processors} may be used, {workers} workers of data augmentation ({source})"
    if workers > processors:
        return Finding("warning", name, f"{text}: more workers than processors slow each other down", fix)
    return Finding("ok", name, text)


def usable_processors(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Processors that this process may use, at least 1: by its affinity (SLURM) and its cgroup (Docker)."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        allowed = os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, cgroup_quota(cgroup))))


def cgroup_quota(cgroup: Path) -> float:
    """Processors that a control group (version 2, else 1) grants; infinite if it sets no limit."""
    try:
        if (cgroup / "cpu.max").is_file():
            quota, period = (cgroup / "cpu.max").read_text(encoding="utf-8").split()
        else:
            files = (cgroup / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
            quota, period = (file.read_text(encoding="utf-8").strip() for file in files)
        granted = float(quota) / float(period)
    except (OSError, ValueError):  # no cgroup, or "max"
        return math.inf
    return granted if granted > 0 else math.inf
