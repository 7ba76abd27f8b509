import errno
import math
import os
import stat
import subprocess
from types import SimpleNamespace

import pytest

from nnunet_ext.utilities import diagnosis
from nnunet_ext.utilities.diagnosis import GIB


def gibibytes(free=100.0, total=100.0):
    return lambda folder: SimpleNamespace(free=free * GIB, total=total * GIB)


def failing(error):
    def call(*arguments, **named):
        raise error

    return call


@pytest.mark.parametrize("version,level", [("3.9.18", "error"), ("3.10.0", "ok"), ("3.14.0rc1", "ok")])
def test_python(version, level):
    finding = diagnosis.check_python(version, ">=3.10")
    assert finding.level == level and version in finding.text
    assert bool(finding.remedy) == (level != "ok")


def test_folder_that_works(tmp_path):
    finding = diagnosis.check_folder("nnUNet_results", str(tmp_path), write=True)
    assert (finding.level, finding.text, finding.remedy) == ("ok", str(tmp_path), "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [None, ""])
def test_unset_folder(value, tmp_path):
    finding = diagnosis.check_folder("nnUNet_raw", value, write=False)
    assert finding.level == "error" and finding.text == "is not set"
    shell(finding.remedy + '; test -d "$nnUNet_raw"', HOME=str(tmp_path))
    assert (tmp_path / "nnUNet_raw").is_dir()


def shell(line, **environment):
    subprocess.run(["sh", "-ec", line], env={"PATH": os.environ["PATH"], **environment}, check=True)


def test_absent_folder(tmp_path):
    absent = tmp_path / "with space" / "x"
    finding = diagnosis.check_folder("nnUNet_raw", str(absent), write=False)
    assert finding.level == "error" and finding.text.endswith("does not exist")
    shell(finding.remedy)
    assert absent.is_dir()


def test_folder_at_a_literal_tilde(tmp_path):
    finding = diagnosis.check_folder("nnUNet_raw", "~/data/raw", write=False)
    assert finding.level == "error" and "begins with ~" in finding.text
    shell(finding.remedy + '; test -d "$nnUNet_raw"', HOME=str(tmp_path))
    assert (tmp_path / "data" / "raw").is_dir()
    assert '"$HOME/nnUNet_raw"' in diagnosis.check_folder("nnUNet_raw", "~other/raw", write=False).remedy


def test_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "file").touch()
    finding = diagnosis.check_folder("nnUNet_raw", str(tmp_path / "file"), write=False)
    assert finding.level == "error" and "is a file" in finding.text


@pytest.mark.parametrize("number,fix", [(errno.EACCES, "chmod u+rwX "), (errno.EROFS, "export nnUNet_results=")])
def test_folder_that_cannot_be_written(tmp_path, monkeypatch, number, fix):
    monkeypatch.setattr(diagnosis.tempfile, "TemporaryFile", failing(OSError(number, os.strerror(number))))
    finding = diagnosis.check_folder("nnUNet_results", str(tmp_path), write=True)
    assert finding.level == "error" and f"read and written ({os.strerror(number)})" in finding.text
    assert fix in finding.remedy
    assert diagnosis.check_folder("nnUNet_raw", str(tmp_path), write=False).level == "ok"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_the_right_to_write(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    finding = diagnosis.check_folder("nnUNet_results", str(tmp_path), write=True)
    shell(finding.remedy)
    assert finding.level == "error"
    assert diagnosis.check_folder("nnUNet_results", str(tmp_path), write=True).level == "ok"


def test_full_disk_is_not_called_a_lack_of_rights(tmp_path, monkeypatch):
    monkeypatch.setattr(diagnosis.tempfile, "TemporaryFile", failing(OSError(errno.ENOSPC, "full")))
    assert diagnosis.check_folder("nnUNet_results", str(tmp_path), write=True).level == "ok"


def test_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    finding = diagnosis.check_folder("nnUNet_raw", "raw", write=False)
    assert (finding.level, finding.remedy) == ("warning", f"export nnUNet_raw={tmp_path / 'raw'}")


def test_trainer_path(tmp_path):
    shim, mine, link = tmp_path / "shim", tmp_path / "mine", tmp_path / "link"
    shim.mkdir(), mine.mkdir(), link.symlink_to(shim)
    for value in (f"{shim}", f"{mine}:{shim}", f"{link}"):
        (finding,) = diagnosis.check_trainer_path(value, shim)
        assert (finding.level, finding.text) == ("ok", value)
    for value in (None, "", f"{mine}"):
        (finding,) = diagnosis.check_trainer_path(value, shim)
        assert finding.level == "error" and 'eval "$(nnunet_ext env)"' in finding.remedy
    warning, ok = diagnosis.check_trainer_path(f"{tmp_path / 'absent'}:{shim}", shim)
    assert (warning.level, ok.level) == ("warning", "ok")
    assert warning.remedy == f"export nnUNet_extTrainer={shim}"


@pytest.mark.parametrize("free,level", [(10, "ok"), (9.9, "warning"), (1, "warning"), (0.9, "error"), (0, "error")])
def test_disk(tmp_path, free, level):
    finding = diagnosis.check_disk("disk of nnUNet_raw", tmp_path, gibibytes(free))
    assert finding.level == level and f"{free:.1f} GiB" in finding.text
    assert bool(finding.remedy) == (level != "ok")


def test_disk_that_does_not_answer(tmp_path):
    usage = failing(OSError(errno.ESTALE, "Stale file handle"))
    finding = diagnosis.check_disk("disk of nnUNet_raw", tmp_path, usage)
    assert finding.level == "error" and "Stale file handle" in finding.text


def test_temporary_folder(tmp_path):
    assert str(tmp_path) in diagnosis.check_temporary_folder(lambda: str(tmp_path)).text
    finding = diagnosis.check_temporary_folder(failing(FileNotFoundError("No usable temporary directory found")))
    assert finding.level == "error" and "No usable" in finding.text and "TMPDIR" in finding.remedy


def test_shared_memory(tmp_path):
    (finding,) = diagnosis.check_shared_memory(tmp_path, gibibytes(total=64 / 1024))
    assert finding.level == "warning" and "Background workers" in finding.text and "--shm-size=8g" in finding.remedy
    (finding,) = diagnosis.check_shared_memory(tmp_path, gibibytes(total=1, free=0))
    assert finding.level == "ok"
    assert diagnosis.check_shared_memory(tmp_path / "absent") == []


@pytest.mark.parametrize(
    "usable,machine,value,level,workers",
    [
        (16, 16, None, "ok", 12),
        (2, 2, None, "ok", 2),  # nnU-Net starts no more than the machine has
        (2, 64, None, "warning", 12),
        (4, 64, "4", "ok", 4),
        (4, 64, "0", "ok", 0),
        (4, 64, "5", "warning", 5),
    ],
)
def test_workers(usable, machine, value, level, workers):
    finding = diagnosis.check_workers(usable, machine, value)
    assert finding.level == level and f" {workers} workers" in finding.text
    assert finding.remedy == ("" if level == "ok" else f"export nnUNet_n_proc_DA={usable}")


@pytest.mark.parametrize("value", ["many", "", "-1", "1.5"])
def test_workers_that_are_no_number(value):
    finding = diagnosis.check_workers(4, 8, value)
    assert finding.level == "error" and finding.remedy == "export nnUNet_n_proc_DA=4"


def test_control_groups_limit_the_processors(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert diagnosis.cgroup_quota(tmp_path) == math.inf
    assert diagnosis.usable_processors(tmp_path) == 8
    for quota, processors in (("max 100000", 8), ("150000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8)):
        (tmp_path / "cpu.max").write_text(quota + "\n")
        assert diagnosis.usable_processors(tmp_path) == processors
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    for quota, processors in (("-1", math.inf), ("300000", 3)):
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
        assert diagnosis.cgroup_quota(tmp_path) == processors


def test_processors_without_affinity(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert diagnosis.usable_processors(tmp_path) == 6
