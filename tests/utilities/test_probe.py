"""Real child processes with fake libraries on PYTHONPATH."""

import sys
import textwrap

import pytest

from nnunet_ext.utilities import probe
from nnunet_ext.utilities.probe import LIBRARIES, run_probe

TORCH = """
    from types import SimpleNamespace as N
    import warnings
    __version__ = "2.6.0+cu124"
    class Tensor:
        def __add__(self, other): return self
        def item(self): return 2
    def ones(size, device):
        if device == "cuda:1": raise RuntimeError("no kernel image\\nmore")
        return Tensor()
    def properties(index):
        if index == 2: raise RuntimeError("fell off the bus")
        return N(name=f"GPU-{index}", total_memory=8, major=9)
    cuda = N(is_available=lambda: True, device_count=lambda: 3, get_device_properties=properties)
    version = N(cuda="12.4", hip=None)
    backends = N(mps=N(is_available=lambda: False))
"""
NO_GPU = """
    def is_available():
        warnings.warn("driver is too old (found version 11040)\\nmore")
        return False
    cuda.is_available = is_available
"""
NO_GPU_SILENT = """
    def refuse(): raise RuntimeError("No CUDA GPUs are available")
    cuda.is_available, cuda.current_device = (lambda: False), refuse
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Write ``NAME.py`` (dots for packages) where a child process finds it first."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fakes"))
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)

    def write(name, source):
        *packages, module = name.split(".")
        folder = tmp_path / "fakes"
        folder.mkdir(exist_ok=True)
        for package in packages:
            folder = folder / package
            folder.mkdir(exist_ok=True)
            (folder / "__init__.py").touch()
        (folder / f"{module}.py").write_text(textwrap.dedent(source))

    for name in LIBRARIES:
        write(name, "__version__ = '1.0'")
    write("torch", TORCH)
    return write


def test_imports_and_devices(fake):
    found = run_probe(["libraries"], 60)
    assert (found.failure, found.timed_out) == ("", False)
    assert {fact["name"]: fact["version"] for fact in found.of_kind("import")} == {
        "torch": "2.6.0+cu124",
        "torchvision": "1.0",
        "timm": "1.0",
        "triton": "1.0",
    }
    gpu = {"kind": "gpu", "available": True, "build": "12.4", "problem": "", "apple": False}
    assert found.of_kind("gpu") == [gpu]
    assert [(d["name"], d["problem"]) for d in found.of_kind("device")] == [
        ("GPU-0", ""),
        ("GPU-1", "no kernel image"),
        ("", "RuntimeError: fell off the bus"),
    ]


@pytest.mark.parametrize(
    "more,problem",
    [(NO_GPU, "driver is too old (found version 11040)"), (NO_GPU_SILENT, "RuntimeError: No CUDA GPUs are available")],
)
def test_why_there_is_no_gpu(fake, more, problem):
    fake("torch", TORCH + more)
    found = run_probe(["libraries"], 60)
    assert [fact["problem"] for fact in found.of_kind("gpu")] == [problem]
    assert found.of_kind("device") == []


def test_a_library_that_fails_leaves_the_others(fake):
    fake("torchvision", "raise RuntimeError('first line\\noperator torchvision::nms does not exist')")
    fake("timm", "print('noise without an end of line', end=''); import absent_library")
    fake("triton", "raise SystemExit('no GPU')")
    errors = {fact["name"]: fact.get("error") for fact in run_probe(["libraries"], 60).of_kind("import")}
    assert errors == {
        "torch": None,
        "torchvision": "RuntimeError: operator torchvision::nms does not exist",
        "timm": "ModuleNotFoundError: No module named 'absent_library'",
        "triton": "SystemExit: no GPU",
    }


@pytest.mark.parametrize(
    "source,failure",
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "Python was killed by SIGKILL"),
        ("import os; os.write(2, b'bad things\\n'); os._exit(3)", "bad things"),
        ("import os; os._exit(3)", "no message"),
    ],
)
def test_a_crash_keeps_what_was_told_before(fake, source, failure):
    fake("torchvision", source)
    found = run_probe(["libraries"], 60)
    assert [fact["name"] for fact in found.facts] == ["torch"]
    assert (found.failure, found.timed_out) == (failure, False)


def test_a_hang_ends(fake):
    fake("torchvision", "import time; time.sleep(600)")
    found = run_probe(["libraries"], 3)
    assert [fact["name"] for fact in found.facts] == ["torch"]
    assert (found.failure, found.timed_out) == ("no answer within 3 s", True)


def test_no_python_to_start(fake, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert "/nowhere/python cannot be started" in run_probe(["libraries"], 3).failure


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no safe path")
def test_the_current_folder_is_not_searched(fake, tmp_path, monkeypatch):
    (tmp_path / "timm.py").write_text("raise ValueError")
    (tmp_path / "fakes" / "timm.py").rename(tmp_path / "fakes" / "timm_.py")
    monkeypatch.chdir(tmp_path)
    facts = {fact["name"]: fact for fact in run_probe(["libraries"], 60).of_kind("import")}
    assert "ValueError" not in facts["timm"].get("error", "")


FIND = """
    import os, sys
    def recursive_find_trainer_class_by_name(name):
        print("Searching in")
        if name == "Absent":
            raise RuntimeError("Could not find requested nnunet trainer Absent in ...")
        sys.path.insert(0, os.environ["nnUNet_extTrainer"])
        return getattr(__import__("mine"), name)
"""


def test_trainers(fake, tmp_path, monkeypatch):
    fake("nnunetv2.utilities.find_objects", FIND)
    folder = tmp_path / "trainers"
    folder.mkdir()
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    (folder / "mine.py").write_text("class Present: pass\n")
    found = run_probe(["trainers", "Present", "Absent"], 60)
    assert found.facts == [
        {"kind": "trainer", "name": "Present", "module": "mine"},
        {"kind": "trainer", "name": "Absent", "error": "", "file": ""},
    ]
    for source, error in (("import absent_library", "ModuleNotFoundError"), ("class (", "SyntaxError")):
        (folder / "mine.py").write_text(source)
        (fact,) = run_probe(["trainers", "Present"], 60).facts
        assert fact["error"].startswith(error) and fact["file"] == str(folder / "mine.py")


def test_a_host_that_cannot_be_imported(fake):
    fake("nnunetv2.utilities.find_objects", "raise ImportError('broken host')")
    (fact,) = run_probe(["trainers", "Any"], 60).facts
    assert (fact["error"], fact["file"]) == ("ImportError: broken host", "")


def test_a_host_that_is_absent(fake):
    fake("nnunetv2", "raise ImportError('no host')")
    (fact,) = run_probe(["trainers", "Any"], 60).facts
    assert (fact["error"], fact["file"]) == ("ImportError: no host", "")


def test_a_line_cut_off_is_no_fact():
    assert probe._parse(b'nnunet_ext probe {"kind": "a"}\nnnunet_ext probe {"ki') == [{"kind": "a"}]
