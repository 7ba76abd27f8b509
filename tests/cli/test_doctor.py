import argparse
import json
import os
import shutil
import sysconfig
from pathlib import Path

import pytest
from toy import SHIM

from nnunet_ext.cli import doctor
from nnunet_ext.settings.registry import SETTINGS
from nnunet_ext.utilities import diagnosis, probe
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.probe import Probe

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
WORKING = {
    "libraries": [
        *({"kind": "import", "name": name, "version": "1.0"} for name in probe.LIBRARIES),
        {"kind": "gpu", "available": True, "build": "12.4", "problem": "", "apple": False},
        {"kind": "device", "index": 0, "name": "A40", "memory": 48 << 30, "major": 8, "problem": ""},
    ],
    "trainers": [{"kind": "trainer", "name": name, "module": "nnunet_ext.trainers.x"} for name in SETTINGS],
}


@pytest.fixture
def working(tmp_path, monkeypatch):
    """An environment without a fault, the two child processes replaced by what they would tell."""
    for variable in FOLDERS:
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("nnUNet_extTrainer", str(SHIM))
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    for variable in ("nnUNet_compile", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    usage = type("Usage", (), {"free": 50 << 30, "total": 50 << 30})
    for name in ("check_disk", "check_shared_memory"):
        check = getattr(diagnosis, name)
        monkeypatch.setattr(diagnosis, name, lambda *given, check=check: check(*given, usage=lambda folder: usage))
    told = {name: list(facts) for name, facts in WORKING.items()}
    monkeypatch.setattr(probe, "run_probe", lambda arguments, timeout: Probe(told[arguments[0]]))
    return told


def run(*arguments):
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    parser.add_argument("--quiet", action="store_true")
    return doctor.run(parser.parse_args(arguments))


def test_all_well(working, capsys):
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok  ") for line in lines[:-1])
    assert lines[-1] == "0 errors, 0 warnings"
    names = [line.split(":")[0].removeprefix("ok").strip() for line in lines[:-1]]
    assert {*FOLDERS, "nnUNet_extTrainer", "Python", "nnunetv2", "torch", "GPU 0", "torch.compile"} <= set(names)
    assert {f"-tr {name}" for name in SETTINGS} <= set(names)
    assert {f"disk of {name}" for name in (*FOLDERS, "TMPDIR")} <= set(names)


def test_a_warning_alone_is_no_failure(working, monkeypatch, capsys):
    working["libraries"].pop()
    working["libraries"][-1] = {**working["libraries"][-1], "available": False}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    number = lines.index("warning  GPU: hidden by CUDA_VISIBLE_DEVICES=''")
    assert lines[number + 1] == "         fix: unset CUDA_VISIBLE_DEVICES"
    assert lines[-1] == "0 errors, 1 warning"


@pytest.mark.parametrize(
    "variable,value,expected",
    [
        ("nnUNet_raw", None, "error    nnUNet_raw: is not set"),
        ("nnUNet_results", "/nowhere", "error    nnUNet_results: /nowhere does not exist"),
        ("nnUNet_preprocessed", __file__, f"error    nnUNet_preprocessed: {__file__} is a file, not a folder"),
        ("nnUNet_extTrainer", None, "error    nnUNet_extTrainer: is not set"),
        ("nnUNet_n_proc_DA", "all", "error    processors: nnUNet_n_proc_DA=all is not a whole number"),
    ],
)
def test_a_broken_variable_is_an_error_with_a_fix(working, monkeypatch, capsys, variable, value, expected):
    monkeypatch.delenv(variable) if value is None else monkeypatch.setenv(variable, value)
    assert run() == 1
    lines = capsys.readouterr().out.splitlines()
    (number,) = [i for i, line in enumerate(lines) if line.startswith(expected)]
    assert lines[number + 1].startswith("         fix: ")
    assert lines[-1] == "1 error, 0 warnings: repair them from the top"


def test_a_failing_search_waits_for_the_errors_above(working, monkeypatch, capsys):
    working["trainers"][:] = [{"kind": "trainer", "name": n, "error": "x", "file": "/mine.py"} for n in SETTINGS]
    assert run() == 1
    assert "fix: repair that file" in capsys.readouterr().out
    working["libraries"][1] = {"kind": "import", "name": "torchvision", "error": "nms"}
    assert run() == 1
    printed = capsys.readouterr().out
    assert "fix: repair that file" not in printed and "when the errors above are repaired" in printed


def test_json(working, monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_raw")
    assert run("--json", "--quiet") == 1
    captured = capsys.readouterr()
    findings = json.loads(captured.out)
    assert captured.err == ""
    assert all(set(finding) == {"level", "name", "text", "remedy"} for finding in findings)
    assert [finding["name"] for finding in findings if finding["level"] == "error"] == ["nnUNet_raw"]


def test_quiet_shows_errors_only(working, monkeypatch, capsys):
    assert run("--quiet") == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    monkeypatch.delenv("nnUNet_raw")
    assert run("--quiet") == 1
    assert [line[:10].strip() for line in capsys.readouterr().out.splitlines()] == ["error    n", "f"]


def test_time_must_be_positive(working):
    with pytest.raises(UsageError, match="--timeout 0 must be more than 0"):
        run("--timeout", "0")


def test_the_python_range_is_that_of_the_package():
    pyproject = Path(doctor.__file__).parents[2] / "pyproject.toml"
    assert f'requires-python = "{doctor.PYTHON_NEEDED}"' in pyproject.read_text()


def test_for_real(tmp_path, monkeypatch, capsys):
    """Nothing replaced: this environment runs these tests, so its libraries and trainers are well."""
    for variable in FOLDERS:
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("nnUNet_extTrainer", str(SHIM))
    path = [str(SHIM.parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    code = run("--json")
    findings = json.loads(capsys.readouterr().out)
    level = {finding["name"]: finding["level"] for finding in findings}
    assert code == int("error" in level.values())
    well = {"import torch", "import torchvision", "import timm", "nnunetv2", "torch", "Python"}
    well |= {*FOLDERS, "nnUNet_extTrainer", *(f"-tr {name}" for name in SETTINGS)}
    assert {name: level[name] for name in well} == dict.fromkeys(well, "ok")
    assert any(name.startswith("GPU") for name in level)
