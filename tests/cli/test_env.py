import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from toy import SHIM

from nnunet_ext.cli import env
from nnunet_ext.cli.main import main


def test_prints_the_export_and_warns_about_unset_folders(
    capsys: pytest.CaptureFixture[str], no_nnunet_folders: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "absent"))
    assert main(["env"]) == 0
    output = capsys.readouterr()
    assert output.out == f"export nnUNet_extTrainer={shlex.quote(str(SHIM))}\n"
    assert "nnUNet_raw is not set; add: export nnUNet_raw=" in output.err
    assert "mkdir -p" in output.err


def test_other_trainer_folders_are_kept_and_ours_comes_once() -> None:
    mine = f"/mine{os.pathsep}{SHIM}"
    assert env.trainer_path(f"{SHIM}{os.pathsep}/mine") == mine == env.trainer_path(mine) == env.trainer_path("/mine")


def test_persist_and_forget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(env, "pth_file", lambda: tmp_path / env.PTH_NAME)
    assert main(["env", "--persist"]) == 0
    assert (tmp_path / env.PTH_NAME).read_text().count("\n") == 1
    code = f"import site, os; site.addsitedir({str(tmp_path)!r}); print(os.environ['nnUNet_extTrainer'])"
    clean = {k: v for k, v in os.environ.items() if k != "nnUNet_extTrainer"}
    for environment, expected in ((clean, str(SHIM)), ({**clean, "nnUNet_extTrainer": "/mine"}, "/mine")):
        result = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert result.stdout.strip() == expected
    assert main(["env", "--forget"]) == 0 == main(["env", "--forget"])
    assert not list(tmp_path.iterdir())
    assert "is now set in every process" in capsys.readouterr().out


def test_an_unwritable_environment_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(env, "pth_file", lambda: tmp_path / "file" / "x.pth")
    assert main(["env", "--persist"]) == 1
    assert "use a virtual environment" in capsys.readouterr().err
