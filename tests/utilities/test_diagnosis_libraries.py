import pytest

from nnunet_ext.utilities import diagnosis_libraries as diagnosis
from nnunet_ext.utilities.diagnosis_libraries import PYTHON
from nnunet_ext.utilities.probe import Probe

INSTALLED = {"torch": "2.6.0", "torchvision": "0.21.0", "timm": "1.0.22"}


def imported(**versions_or_errors):
    """Facts of imports: a text with a space is an error."""
    facts = []
    for name, text in versions_or_errors.items():
        facts.append({"kind": "import", "name": name, "error" if " " in text else "version": text})
    return facts


def levels(findings):
    return {finding.name.removeprefix("import "): finding.level for finding in findings}


def test_versions():
    assert diagnosis.check_version("nnunetv2", "2.8.1", "<3,>=2.8.1").level == "ok"
    assert diagnosis.check_version("torch", "2.6.0+cu124", ">=2.6").level == "ok"
    old = diagnosis.check_version("nnunetv2", "2.7.0", "<3,>=2.8.1")
    assert old.level == "error" and "2.7.0 is installed, but <3,>=2.8.1 is needed" in old.text
    assert old.remedy == f"{PYTHON} -m pip install 'nnunetv2<3,>=2.8.1'"
    assert diagnosis.check_version("nnunetv2", None, "<3").text == "is not installed"


def test_ranges_come_from_the_packages_themselves(monkeypatch):
    needs = {"ours": ["torch>=2.6", "torch<1; extra == 'old'", "numpy"], "host": ["torch!=2.9.*"]}
    monkeypatch.setattr(diagnosis, "installed_version", lambda name: "1" if name in needs else None)
    monkeypatch.setattr(diagnosis, "requires", needs.get)
    assert diagnosis.required_range("torch", ["ours", "host", "absent"]) == "!=2.9.*,>=2.6"
    assert diagnosis.required_range("pandas", ["ours"]) == ""
    assert diagnosis.installed_version("absent") is None


def test_libraries_that_work():
    probe = Probe(imported(torch="2.6.0+cu124", torchvision="0.21.0+cu124", timm="1.0.22"))
    findings = diagnosis.check_imports(probe, INSTALLED, has_driver=True)
    assert levels(findings) == {"torch": "ok", "torchvision": "ok", "timm": "ok"}


NMS = "RuntimeError: operator torchvision::nms does not exist"


def test_cpu_torch_beside_cuda_torchvision():
    probe = Probe(imported(torch="2.6.0+cpu", torchvision=NMS, timm=NMS))
    installed = {**INSTALLED, "torchvision": "0.21.0+cu124"}
    findings = diagnosis.check_imports(probe, installed, has_driver=True)
    assert levels(findings) == {
        "torch": "ok",
        "torchvision": "error",
        "timm": "error",
        "torch and torchvision": "warning",
    }
    assert "torchvision::nms" in findings[1].text
    assert f"{PYTHON} -m pip uninstall -y torch torchvision && " in findings[1].remedy
    assert "torch==2.6.0 torchvision --index-url https://download.pytorch.org/whl/cu124" in findings[1].remedy
    assert findings[2].remedy.startswith("nnunet_ext doctor")
    on_cpu = diagnosis.check_imports(probe, installed, has_driver=False)[1]
    assert "https://download.pytorch.org/whl/cpu" in on_cpu.remedy


def test_builds_that_differ_but_import():
    probe = Probe(imported(torch="2.6.0+cu118", torchvision="0.21.0+cu124", timm="1"))
    finding = diagnosis.check_imports(probe, INSTALLED, has_driver=True)[-1]
    assert finding.level == "warning" and "torch is built for cu118 but torchvision is built for cu124" in finding.text


def test_reinstalling_what_is_not_there_or_from_the_usual_index():
    assert (
        diagnosis.reinstall_pair({"torch": "", "torchvision": ""}, has_driver=False)
        .split("  #")[0]
        .endswith("pip install torch torchvision")
    )
    plain = diagnosis.reinstall_pair({"torch": "2.6.0", "torchvision": "0.21.0"}, has_driver=True)
    assert "torch==2.6.0 torchvision  #" in plain


def test_timm_alone():
    probe = Probe(imported(torch="2.6.0", torchvision="0.21.0", timm="ImportError: no huggingface_hub"))
    finding = diagnosis.check_imports(probe, INSTALLED, has_driver=False)[-1]
    assert finding.level == "error" and finding.remedy.endswith("--no-deps timm")


def test_a_probe_that_crashed_or_hung():
    crashed = diagnosis.check_imports(Probe([], "Python was killed by SIGSEGV"), INSTALLED, has_driver=False)
    assert "SIGSEGV" in crashed[0].text and "pip install" in crashed[0].remedy
    hung = diagnosis.check_imports(Probe([], "no answer within 1 s", timed_out=True), INSTALLED, has_driver=False)
    assert "--timeout" in hung[0].remedy


def trainer(errors_above=False, failure="", timed_out=False, **fact):
    facts = [{"kind": "trainer", "name": "UCITrainer", **fact}] if fact else []
    (finding,) = diagnosis.check_trainers(Probe(facts, failure, timed_out), ["UCITrainer"], errors_above=errors_above)
    assert finding.name == "-tr UCITrainer" and bool(finding.remedy) == (finding.level != "ok")
    return finding


def test_trainers():
    assert trainer(module="nnunet_ext.trainers.uci").level == "ok"
    other = trainer(module="mine")
    assert other.level == "warning" and "another class of this name, in mine" in other.text
    absent = trainer(error="", file="")
    assert absent.level == "error" and absent.remedy == 'eval "$(nnunet_ext env)"'


def test_trainers_whose_search_fails():
    named = trainer(error="ModuleNotFoundError: no x", file="/mine/a.py")
    assert named.level == "error" and "fails in /mine/a.py: ModuleNotFoundError: no x" in named.text
    assert named.remedy.startswith("repair that file")
    assert "reinstall" in trainer(error="ImportError: x", file="").remedy
    assert trainer(errors_above=True, error="x", file="/mine/a.py").remedy.startswith("nnunet_ext doctor")
    assert "did not end: Python was killed" in trainer(failure="Python was killed by SIGSEGV").text
    assert "--timeout" in trainer(failure="no answer", timed_out=True).remedy
    assert trainer(failure="x").remedy.startswith("nnUNetv2_train -h")


def gpu(has_driver=True, visible=None, devices=(), **fact):
    facts = {"kind": "gpu", "available": bool(devices), "build": "12.4", "problem": "", "apple": False, **fact}
    probe = Probe([facts, *devices])
    return diagnosis.check_gpu(probe, has_driver=has_driver, visible=visible, installed=INSTALLED)


def device(index=0, major=8, problem="", name="NVIDIA A40"):
    facts = {"kind": "device", "index": index, "name": name, "memory": 48 << 30, "major": major}
    return {**facts, "problem": problem}


def test_gpus_that_work_or_not():
    first, second = gpu(devices=[device(), device(1, problem="no kernel image is available")])
    assert (first.level, first.name, first.text) == ("ok", "GPU 0", "NVIDIA A40, 48 GiB")
    assert second.level == "error" and "cannot compute: no kernel image" in second.text and second.remedy
    assert gpu(has_driver=False, apple=True)[0].level == "ok"


def test_no_gpu_is_a_warning_without_a_driver_only():
    (absent,) = gpu(has_driver=False, build=None)
    assert absent.level == "warning" and "-device cpu" in absent.remedy
    (build,) = gpu(build=None)
    assert build.level == "error" and "CPU only" in build.text and "torch==2.6.0 torchvision" in build.remedy
    (driver,) = gpu(problem="The NVIDIA driver on your system is too old")
    assert driver.level == "error" and "CUDA 12.4" in driver.text and "too old" in driver.text
    for visible in ("", "-1"):
        (hidden,) = gpu(visible=visible)
        assert (hidden.level, hidden.remedy) == ("warning", "unset CUDA_VISIBLE_DEVICES")
    assert gpu(visible="0")[0].level == "error"


def test_nothing_is_said_of_gpus_without_torch():
    assert diagnosis.check_gpu(Probe([]), has_driver=True, visible=None, installed=INSTALLED) == []


def test_mixed_precision():
    found = diagnosis.check_mixed_precision(Probe([device(0, 6), device(1, 7), device(2, 9), device(3, 0, "broken")]))
    assert [(finding.level, finding.name[-1]) for finding in found] == [("warning", "0"), ("ok", "1"), ("ok", "2")]
    assert "no bfloat16" in found[1].text and "and bfloat16" in found[2].text


@pytest.mark.parametrize(
    "value,devices,triton,compiler,headers,level,text",
    [
        (None, 1, "3.2.0", "/usr/bin/gcc", True, "ok", "on; triton 3.2.0"),
        ("T", 1, "3.2.0", "/usr/bin/gcc", True, "ok", "on; "),
        ("f", 1, "No module", None, False, "ok", "off (nnUNet_compile=f)"),
        (None, 0, "No module", None, False, "ok", "not used without a GPU"),
        (None, 1, "No module named triton", "/usr/bin/gcc", True, "error", "No module named triton"),
        ("1", 1, "3.2.0", None, True, "error", "C compiler"),
        (None, 1, "3.2.0", "/usr/bin/gcc", False, "error", "Python.h"),
    ],
)
def test_compile(value, devices, triton, compiler, headers, level, text):
    probe = Probe([*imported(triton=triton), {"kind": "gpu"}, *[device()] * devices])
    finding = diagnosis.check_compile(probe, value, compiler, headers=headers)
    assert finding.level == level and text in finding.text
    assert finding.remedy.startswith("export nnUNet_compile=f" if level == "error" else "")
    assert bool(finding.remedy) == (level == "error")


def test_compile_is_unknown_without_torch():
    finding = diagnosis.check_compile(Probe([], "no answer within 1 s"), None, "gcc", headers=True)
    assert finding.level == "warning" and "unknown" in finding.text and finding.remedy


def test_compile_when_the_import_of_triton_never_ended():
    finding = diagnosis.check_compile(Probe([{"kind": "gpu"}, device()], "no answer"), None, "gcc", headers=True)
    assert finding.level == "error" and "no answer" in finding.text
