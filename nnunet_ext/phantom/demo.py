"""The whole of UCI on phantoms, as the commands that a user would type."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.phantom.sources import ct_name
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path

NUM_CTS, NUM_TEST_CTS, NUM_XRAYS, CT_SHAPE = 12, 3, 150, (32, 96, 96)
PATCH_SIZE, BATCH_SIZE = (32, 64, 64), 2
SETTINGS = {
    "num_epochs": "12",
    "num_iterations_per_epoch": "40",
    "num_val_iterations_per_epoch": "4",
    "initial_lr": "2e-3",
    "mirror_axes": "[]",
    "features_per_stage": "[8,16,32,64,64,64]",
    "blocks_per_stage": "[1,1,1,1]",
    "heads_per_stage": "[1,2,2,4]",
    "full_resolution_conv": "true",
    "num_prototypes": "32",
    "xray_batch_size": "8",
    "xray_patch_size": "[128,128]",
}
"""A small network and a short training: minutes on two CPU cores."""

CT_ID, XRAY_ID, PLANS, TRAINER = 990, 991, "nnUNetPlans", "UCITrainer"
CT_DATASET = f"Dataset{CT_ID}_COVID1920"
TEST_IMAGES, TEST_LABELS = f"nnUNet_raw/{CT_DATASET}/imagesTs", f"nnUNet_raw/{CT_DATASET}/labelsTs"
MODEL = f"nnUNet_results/{CT_DATASET}/{TRAINER}__{PLANS}_demo__3d_fullres"
HOST_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
COMMANDS_FILE, LOG_FILE = "commands.sh", "demo.log"
OWN_OUTPUT = ("phantoms", *HOST_FOLDERS, "predictions", "report.html", LOG_FILE, COMMANDS_FILE)
MARK = "# written by nnunet_ext demo"
TAIL_LINES = 20


@dataclass(frozen=True)
class Step:
    """One command of the workflow, with paths relative to the demo's folder."""

    title: str
    command: tuple[str, ...]


def demo_steps(device: str) -> list[Step]:
    """The commands, in order; they run in the demo's folder."""
    held_out = [ct_name(number) for number in range(NUM_CTS - NUM_TEST_CTS + 1, NUM_CTS + 1)]
    target, plans = str(CT_ID), ("-p", f"{PLANS}_demo")
    model = ("-d", target, "-c", "3d_fullres", "-tr", TRAINER, *plans, "-f", "0")
    settings = [f"{key}={value}" for key, value in SETTINGS.items()]
    volumes = ("--cts", str(NUM_CTS), "--xrays", str(NUM_XRAYS), "--shape", *map(str, CT_SHAPE), "-np", "2")
    preprocessing = ("-d", target, "-c", "3d_fullres", "-np", "2", "--verify_dataset_integrity")
    planning = ("-d", target, "-c", "3d_fullres", "-p", PLANS, "-tr", TRAINER, "--name", "demo")
    sizes = ("--patch-size", *map(str, PATCH_SIZE), "--batch-size", str(BATCH_SIZE))
    prediction = ("-i", TEST_IMAGES, "-o", "predictions", *model, "-device", device)
    page = (MODEL, "-f", "0", "--evaluation", "predictions", "--images", TEST_IMAGES, "-o", "report.html")
    return [
        Step("make CT and X-ray phantoms", ("nnunet_ext", "phantom", "phantoms", *volumes)),
        Step(
            "convert the CTs, some held out",
            ("nnunet_ext", "convert", "covid19_20", "phantoms/covid19_20", "--id", target, "--holdout", *held_out),
        ),
        Step("convert the X-rays", ("nnunet_ext", "convert", "chestxr", "phantoms/chestxr", "--id", str(XRAY_ID))),
        Step("plan and preprocess (nnU-Net)", ("nnUNetv2_plan_and_preprocess", *preprocessing)),
        Step("write plans for a small UCI", ("nnunet_ext", "plan", *planning, *sizes, "--set", *settings)),
        Step("link CTs and X-rays", ("nnunet_ext", "link", target, "--xray", str(XRAY_ID))),
        Step(
            "train UCI (nnU-Net)",
            ("nnUNetv2_train", target, "3d_fullres", "0", "-tr", TRAINER, *plans, "-device", device),
        ),
        Step(
            "predict the held-out CTs (nnU-Net)",
            ("nnUNetv2_predict", *prediction, "-npp", "1", "-nps", "1"),
        ),
        Step("evaluate", ("nnunet_ext", "evaluate", TEST_LABELS, "predictions", "-np", "2")),
        Step("report", ("nnunet_ext", "report", *page)),
    ]


def demo_environment(trainer_folder: Path) -> dict[str, str]:
    """The variables that the commands need besides those that are set, relative to the demo's folder.

    Few worker processes and no compilation: in a demo, either takes longer to start than it saves.
    """
    folders = {name: f"$PWD/{name}" for name in HOST_FOLDERS}
    economy = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "2", "nnUNet_compile": "f"}
    return folders | {"nnUNet_extTrainer": str(trainer_folder)} | economy


def run_demo(folder: Path, device: str, trainer_folder: Path, quiet: bool = False) -> None:
    """Run all steps in `folder`; output goes to ``demo.log``, the commands to ``commands.sh``.

    What an earlier demo wrote there is replaced.

    Raises:
        UsageError: `folder` holds something else, a program is not installed, or a step failed (names step, command
            and log, with the end of its output).
    """
    steps, variables = demo_steps(device), demo_environment(trainer_folder)
    programs = {step.command[0]: find_program(step.command[0]) for step in steps}
    clear_folder(folder)
    with atomic_path(folder / COMMANDS_FILE) as temporary:
        temporary.write_text(shell_script(steps, variables), encoding="utf-8")
    for name in HOST_FOLDERS:
        (folder / name).mkdir()
    environment = os.environ | {key: value.replace("$PWD", str(folder)) for key, value in variables.items()}
    for number, step in enumerate(steps, start=1):
        started = time.monotonic()
        if not quiet:
            print(f"[{number}/{len(steps)}] {step.title}\n  $ {shlex.join(step.command)}", flush=True)
        command = [programs[step.command[0]], *step.command[1:]]
        code = _run_logged(command, shlex.join(step.command), folder, environment, quiet)
        if code:
            raise UsageError(_failure(step, code, folder / LOG_FILE))
        if not quiet:
            print(f"  done in {_clock(time.monotonic() - started)}", flush=True)


def clear_folder(folder: Path) -> None:
    """Remove what an earlier demo left in `folder`.

    Raises:
        UsageError: it is not empty and no demo's output.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {folder} is not a folder; name a new one")
    if folder.is_dir() and any(folder.iterdir()):
        script = folder / COMMANDS_FILE
        if not script.is_file() or MARK not in script.read_text(encoding="utf-8", errors="replace"):
            raise UsageError(f"-o {folder} is not empty and not the output of an earlier demo; name a new folder")
        # The script, which marks the folder as ours, goes last: an interrupted removal can be repeated.
        for name in OWN_OUTPUT:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def shell_script(steps: list[Step], variables: dict[str, str]) -> str:
    """The demo as a shell script, to read or to run in a new folder."""
    exports = [f'export {key}="{value}"' for key, value in variables.items()]
    folders = "mkdir -p " + " ".join(f'"${name}"' for name in HOST_FOLDERS)
    lines = [line for step in steps for line in ("", f"# {step.title}", shlex.join(step.command))]
    return "\n".join(["#!/bin/sh", MARK, "set -e", *exports, folders, *lines]) + "\n"


def find_program(name: str) -> str:
    """The path of a console script of this Python environment.

    Raises:
        UsageError: it is not installed.
    """
    places = [str(Path(sys.executable).parent), sysconfig.get_path("scripts")]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise UsageError(f"{name} is not in {places[0]}; install it there: {sys.executable} -m pip install nnunet-ext")
    return found


def _run_logged(command: list[str], shown: str, folder: Path, environment: dict[str, str], quiet: bool) -> int:
    """Run one command, appending its output to the log; returns its exit code. Whatever ends us ends its processes."""
    log, started = folder / LOG_FILE, time.monotonic()
    live = sys.stdout.isatty() and not quiet
    with log.open("ab") as output:
        output.write(f"\n$ {shown}\n".encode())
        output.flush()
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while child.poll() is None:
                time.sleep(0.2)
                if live:
                    status = f"  {_clock(time.monotonic() - started)}  {tail(log, 1)[:90]}"
                    print(f"\r{status:<100}", end="", flush=True)
        finally:
            _end(child)
            if live:
                print("\r" + " " * 100 + "\r", end="", flush=True)
    return child.returncode


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a command and every process it started, politely at first; nothing if it has ended."""
    if child.poll() is not None:
        return
    if not hasattr(os, "killpg"):  # Windows
        child.kill()
        child.wait()
        return
    os.killpg(child.pid, signal.SIGTERM)  # it leads a process group of its own
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=5)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def tail(log: Path, lines: int) -> str:
    """The last non-empty lines of a log; of a line that a progress bar rewrote, its last state."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16384))
        text = file.read().decode(errors="replace")
    kept = [line.rstrip().rsplit("\r", 1)[-1] for line in text.split("\n") if line.strip()]
    return "\n".join(kept[-lines:])


def _failure(step: Step, code: int, log: Path) -> str:
    return (
        f"step '{step.title}' failed with exit code {code}\n  command: {shlex.join(step.command)}\n  log: {log}\n"
        f"  the last {TAIL_LINES} lines of the log:\n{tail(log, TAIL_LINES)}"
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
