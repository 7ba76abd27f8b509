"""What only a fresh process can tell, since a broken library may crash, hang or print: run the source of this module.

The child needs nothing but the standard library and the caller's environment: ``nnunet_ext`` need not be importable.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from typing import Any

MARK = "nnunet_ext probe "  # begins what is ours in an output into which others print
LIBRARIES = ("torch", "torchvision", "timm", "triton")
Fact = dict[str, Any]


@dataclass(frozen=True)
class Probe:
    """What a fresh process told: facts in the order told, and how it failed (empty if it ran to its end)."""

    facts: list[Fact]
    failure: str = ""
    timed_out: bool = False

    def of_kind(self, kind: str) -> list[Fact]:
        """The facts of a kind: ``import``, ``gpu``, ``device`` or ``trainer``."""
        return [fact for fact in self.facts if fact["kind"] == kind]


def run_probe(arguments: Sequence[str], timeout: float) -> Probe:
    """Run `main` in a fresh process with this environment, for at most `timeout` seconds."""
    source = Path(__file__).read_text(encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-c", source, *arguments],
            capture_output=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return Probe(_parse(error.stdout or b""), f"no answer within {timeout:g} s", timed_out=True)
    except OSError as error:
        return Probe([], f"{sys.executable} cannot be started ({error.strerror})")
    failure = ""
    if done.returncode < 0:
        failure = f"Python was killed by {signal.Signals(-done.returncode).name}"
    elif done.returncode:
        failure = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
    return Probe(_parse(done.stdout), failure)


def _parse(output: bytes) -> list[Fact]:
    lines = [line.partition(MARK)[2] for line in output.decode(errors="replace").splitlines() if MARK in line]
    return [json.loads(line) for line in lines if line.endswith("}")]  # the last one may be cut off


def main(arguments: Sequence[str]) -> None:
    """``libraries``, or ``trainers NAME ...``: tell one fact per line."""
    if arguments[0] == "libraries":
        for name in LIBRARIES:
            _tell_import(name)
        if "torch" in sys.modules:
            _tell_gpus()
    else:
        for name in arguments[1:]:
            _tell_trainer(name)


def _tell(kind: str, **fact: object) -> None:
    print(f"\n{MARK}{json.dumps({'kind': kind, **fact})}", flush=True)


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}".removesuffix(": ")


def _tell_import(name: str) -> None:
    try:
        module = import_module(name)
    except (Exception, SystemExit) as error:
        _tell("import", name=name, error=_last_line(error))
    else:
        _tell("import", name=name, version=str(getattr(module, "__version__", "unknown")))


def _tell_gpus() -> None:
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    problem = str(caught[-1].message).splitlines()[0] if caught else ""
    build = torch.version.cuda or torch.version.hip
    if build and not available and not problem:
        try:
            torch.cuda.current_device()
        except Exception as error:
            problem = _last_line(error)
    _tell("gpu", available=available, build=build, problem=problem, apple=torch.backends.mps.is_available())
    for index in range(torch.cuda.device_count() if available else 0):
        try:
            properties = torch.cuda.get_device_properties(index)
            facts = {"name": properties.name, "memory": properties.total_memory, "major": properties.major}
            _tell("device", index=index, **facts, problem=_kernel_problem(index))
        except Exception as error:
            _tell("device", index=index, name="", memory=0, major=0, problem=_last_line(error))


def _kernel_problem(index: int) -> str:
    """Why nothing can be computed on a GPU (too old for this torch, full, in exclusive use); empty if it can."""
    import torch

    try:
        (torch.ones(1, device=f"cuda:{index}") + 1).item()
    except Exception as error:
        return str(error).strip().splitlines()[0]
    return ""


def _tell_trainer(name: str) -> None:
    try:
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

        module = recursive_find_trainer_class_by_name(name).__module__
    except (Exception, SystemExit) as error:
        missing = isinstance(error, RuntimeError) and "Could not find requested" in str(error)
        _tell("trainer", name=name, error="" if missing else _last_line(error), file=_culprit(error))
    else:
        _tell("trainer", name=name, module=module)


def _culprit(error: BaseException) -> str:
    """The file with a trainer in which a search ended; empty if none is to blame."""
    folders = [folder for folder in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if folder]
    host = sys.modules.get("nnunetv2")  # None if its own import failed
    folders += [str(Path(folder) / "training" / "nnUNetTrainer") for folder in getattr(host, "__path__", ())]
    files = [frame.filename for frame in extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        files.append(error.filename)
    ours = [file for file in files if any(file.startswith(os.path.join(folder, "")) for folder in folders)]  # noqa: PTH118
    return ours[-1] if ours else ""


if __name__ == "__main__":
    if sys.path[0] == "":  # the current folder, not searched by nnUNetv2_train: a torch.py there must not count
        del sys.path[0]
    main(sys.argv[1:])
