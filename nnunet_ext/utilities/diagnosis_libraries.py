"""What can keep nnU-Net and its trainers from working in this Python environment: libraries, trainers, GPU, compiler.

Every check takes what it judges, mostly the facts of `nnunet_ext.utilities.probe`, and returns findings.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from nnunet_ext.utilities.diagnosis import GIB, Finding
from nnunet_ext.utilities.probe import Fact, Probe

PAIR = ("torch", "torchvision")
PYTHON = shlex.quote(sys.executable)
AFTERWARDS = "nnunet_ext doctor  # again, when the errors above are repaired"
PATIENCE = "nnunet_ext doctor --timeout 900  # a slow disk? If that does not help, install torch and torchvision anew"
COMPILE_OFF = "export nnUNet_compile=f"


def installed_version(package: str) -> str | None:
    """As pip knows it; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def required_range(package: str, by: Iterable[str]) -> str:
    """The versions of a package that all of several installed packages accept, e.g. ``<3,>=2.8.1``; "" for any."""
    found = SpecifierSet()
    for distribution in by:
        for line in (requires(distribution) or []) if installed_version(distribution) else []:
            requirement = Requirement(line)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if requirement.name == package and applies:
                found &= requirement.specifier
    return str(found)


def check_version(package: str, found: str | None, needs: str) -> Finding:
    """The installed version of a package (None: absent) against a range."""
    remedy = f"{PYTHON} -m pip install {shlex.quote(package + needs)}"
    if found is None:
        return Finding("error", package, "is not installed", remedy)
    if not SpecifierSet(needs).contains(found, prereleases=True):
        return Finding("error", package, f"{found} is installed, but {needs} is needed", remedy)
    return Finding("ok", package, f"{found} (needs {needs})" if needs else found)


def check_imports(probe: Probe, installed: Mapping[str, str | None], *, has_driver: bool) -> list[Finding]:
    """Whether torch, torchvision and timm can be imported together, and are of one build.

    Args:
        probe: of ``libraries``.
        installed: versions as pip knows them, for the remedy.
        has_driver: the machine has an NVIDIA driver.
    """
    facts = {fact["name"]: fact for fact in probe.of_kind("import")}
    versions = {name: facts.get(name, {}).get("version") or installed.get(name) or "" for name in PAIR}
    repair = reinstall_pair(versions, has_driver=has_driver)
    findings: list[Finding] = []
    for name in (*PAIR, "timm"):
        fact = facts.get(name, {"error": probe.failure or "no answer"})
        if "version" in fact:
            findings.append(Finding("ok", f"import {name}", fact["version"]))
            continue
        remedy = repair if name in PAIR else f"{PYTHON} -m pip install --upgrade --force-reinstall --no-deps timm"
        if any(finding.level == "error" for finding in findings):
            remedy = AFTERWARDS
        elif probe.timed_out:
            remedy = PATIENCE
        text = f"{fact['error']} (installed: {installed.get(name) or 'no'})"
        findings.append(Finding("error", f"import {name}", text, remedy))
    builds = {name: build for name in PAIR if (build := Version(versions[name] or "0").local)}
    if len(set(builds.values())) > 1:
        text = " but ".join(f"{name} is built for {build}" for name, build in builds.items())
        findings.append(Finding("warning", "torch and torchvision", text, repair))
    return findings


def reinstall_pair(versions: Mapping[str, str], *, has_driver: bool) -> str:
    """The command that installs torch and torchvision anew and together, for the GPU if one of them was.

    Args:
        versions: of torch and torchvision, with their build (``2.6.0+cu124``); empty where unknown.
        has_driver: prefer the build for the GPU if the two differ.
    """
    builds = [Version(versions[name] or "0").local or "" for name in PAIR]
    for_gpu = [build for build in builds if build.startswith("cu")]
    build = for_gpu[0] if for_gpu and (has_driver or "cpu" not in builds) else "cpu" if "cpu" in builds else ""
    index = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
    pin = f"=={Version(versions['torch']).public}" if versions["torch"] else ""
    return (
        f"{PYTHON} -m pip uninstall -y torch torchvision && {PYTHON} -m pip install torch{pin} torchvision{index}"
        "  # both from one place, so that they fit each other"
    )


def check_trainers(probe: Probe, trainers: Iterable[str], *, errors_above: bool) -> list[Finding]:
    """Whether nnU-Net's own search finds each trainer, as ours.

    Args:
        probe: of ``trainers``.
        trainers: names for ``-tr``.
        errors_above: there are other errors, of which a failing search may be but the consequence.
    """
    facts = {fact["name"]: fact for fact in probe.of_kind("trainer")}
    return [_trainer(name, facts.get(name), probe, errors_above) for name in trainers]


def _trainer(name: str, fact: Fact | None, probe: Probe, errors_above: bool) -> Finding:
    title = f"-tr {name}"
    if fact is None:
        remedy = PATIENCE if probe.timed_out else "nnUNetv2_train -h  # shows what is wrong with nnU-Net itself"
        text = f"nnU-Net's search did not end: {probe.failure or 'no answer'}"
    elif "module" in fact:
        if fact["module"].startswith("nnunet_ext."):
            return Finding("ok", title, "is found by nnU-Net")
        remedy = "rename the other class, or take its folder out of nnUNet_extTrainer"
        return Finding("warning", title, f"nnU-Net takes another class of this name, in {fact['module']}", remedy)
    elif not fact["error"]:
        return Finding("error", title, "is not found by nnU-Net", 'eval "$(nnunet_ext env)"')
    elif fact["file"]:
        text = f"nnU-Net's search fails in {fact['file']}: {fact['error']}"
        remedy = "repair that file, or remove it from the folders in which nnU-Net searches"
    else:
        text = f"nnU-Net's search fails: {fact['error']}"
        remedy = f"{PYTHON} -m pip install --force-reinstall --no-deps nnunetv2=={installed_version('nnunetv2')}"
    return Finding("error", title, text, AFTERWARDS if errors_above else remedy)


def check_gpu(
    probe: Probe, *, has_driver: bool, visible: str | None, installed: Mapping[str, str | None]
) -> list[Finding]:
    """Whether torch can use a GPU, and which.

    Args:
        probe: of ``libraries``.
        has_driver: the machine has an NVIDIA driver.
        visible: value of ``CUDA_VISIBLE_DEVICES``.
        installed: versions of torch and torchvision, for the remedy.
    """
    gpu = next(iter(probe.of_kind("gpu")), None)
    if gpu is None:
        return []  # torch itself is broken, and that is said already
    if gpu["available"]:
        return [_device(device) for device in probe.of_kind("device")]
    if gpu["apple"]:
        return [Finding("ok", "GPU", "of Apple; train and predict with -device mps")]
    if not has_driver:
        text = "none: this machine has no NVIDIA driver"
        return [
            Finding(
                "warning",
                "GPU",
                text,
                "nnUNetv2_train ... -device cpu  # slow; in Docker on a machine with a GPU: docker run --gpus all ...",
            )
        ]
    if gpu["build"] is None:
        pin = f"=={Version(found).public}" if (found := installed.get("torch")) else ""
        remedy = (
            f"{PYTHON} -m pip uninstall -y torch torchvision && {PYTHON} -m pip install torch{pin} torchvision"
            "  # see https://pytorch.org/get-started/locally for the index of another CUDA version"
        )
        return [Finding("error", "GPU", "there is an NVIDIA driver, but this torch is built for the CPU only", remedy)]
    if visible is not None and visible.strip() in ("", "-1"):
        text = f"hidden by CUDA_VISIBLE_DEVICES={visible!r}"
        return [Finding("warning", "GPU", text, "unset CUDA_VISIBLE_DEVICES")]
    remedy = (
        "nvidia-smi  # must list the GPU: if not, ask for the driver to be repaired (in Docker: docker run --gpus all"
        " ...); if it does, the driver is too old for this torch: update it, or install a torch for an older CUDA"
    )
    return [Finding("error", "GPU", f"torch for CUDA {gpu['build']} cannot use it: {gpu['problem']}", remedy)]


def _device(device: Fact) -> Finding:
    name = f"GPU {device['index']}"
    text = f"{device['name']}, {device['memory'] / GIB:.0f} GiB"
    if not device["problem"]:
        return Finding("ok", name, text)
    remedy = "nvidia-smi  # is it in use by others? Otherwise this torch does not support it: install an older torch"
    return Finding("error", name, f"{text}: cannot compute: {device['problem']}", remedy)


def check_mixed_precision(probe: Probe) -> list[Finding]:
    """Whether half precision, in which nnU-Net trains on a GPU, is fast there; nothing to say without an NVIDIA GPU."""
    findings = []
    for device in probe.of_kind("device"):
        name = f"mixed precision on GPU {device['index']}"
        if device["major"] >= 7:
            bf16 = (
                "float16 and bfloat16" if device["major"] >= 8 else "float16; no bfloat16, which nnU-Net does not use"
            )
            findings.append(Finding("ok", name, bf16))
        elif device["major"]:
            text = "float16 saves memory but no time: this GPU has no tensor cores"
            findings.append(Finding("warning", name, text, "nothing to repair; a GPU from Volta (2017) on is faster"))
    return findings


def check_compile(probe: Probe, value: str | None, compiler: str | None, *, headers: bool) -> Finding:
    """Whether torch.compile, which nnU-Net uses on a GPU unless told otherwise, has what it needs.

    Args:
        probe: of ``libraries``.
        value: of ``nnUNet_compile``.
        compiler: the C compiler, None if there is none.
        headers: the headers of Python are there (Python.h).
    """
    name = "torch.compile"
    if value is not None and value.lower() not in ("true", "1", "t"):
        return Finding("ok", name, f"off (nnUNet_compile={value})")
    if not probe.of_kind("gpu"):
        return Finding("warning", name, "unknown: torch could not be asked for a GPU", "see the findings about torch")
    if not probe.of_kind("device"):
        return Finding("ok", name, "not used without a GPU")
    triton = next((fact for fact in probe.of_kind("import") if fact["name"] == "triton"), {"error": probe.failure})
    if "version" not in triton:
        return Finding("error", name, f"needs triton, whose import fails: {triton['error']}", COMPILE_OFF)
    if compiler is None:
        remedy = f"{COMPILE_OFF}  # or install a compiler: sudo apt-get install gcc"
        return Finding("error", name, "needs a C compiler, but there is no gcc or clang (nor what CC names)", remedy)
    if not headers:
        remedy = f"{COMPILE_OFF}  # or install the headers: sudo apt-get install python3-dev"
        return Finding("error", name, "needs the C headers of Python (Python.h), which are not installed", remedy)
    return Finding("ok", name, f"on; triton {triton['version']}, compiler {compiler}")
