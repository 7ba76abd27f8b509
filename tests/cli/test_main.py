import errno
import re
import subprocess
import sys

import pytest
from toy import REPOSITORY

from nnunet_ext.cli.main import COMMANDS, build_parser, main

HEAVY = ("torch", "numpy", "nnunetv2", "SimpleITK", "scipy", "matplotlib", "pandas")


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = "import sys; from nnunet_ext.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += f"print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert all(re.search(rf"\n    {name}\s", result.stdout) for name in COMMANDS)
    assert result.stderr.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_quiet(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([name, "--help"])
    assert exit_.value.code == 0
    assert "--quiet" in capsys.readouterr().out


def test_a_usage_error_is_one_line_without_traceback(
    capsys: pytest.CaptureFixture[str], no_nnunet_folders: None
) -> None:
    assert main(["link", "115", "--xray", "700"]) == 1
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert output.err.startswith("nnunet_ext link: error: nnUNet_") and "is not set; run: export" in output.err


def test_ctrl_c_exits_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("nnunet_ext.cli.env.run", interrupt)
    assert main(["env"]) == 130
    assert capsys.readouterr().err == "nnunet_ext env: interrupted\n"


@pytest.mark.parametrize("filename", ["/full/page.html", None])
def test_a_full_disk_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], filename: str | None
) -> None:
    def full(_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", filename)

    monkeypatch.setattr("nnunet_ext.cli.env.run", full)
    assert main(["env"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("nnunet_ext env: error: No space left on device: ")
    assert filename is None or filename in error


def test_other_errors_of_the_system_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("nnunet_ext.cli.env.run", broken)
    with pytest.raises(OSError, match="Input/output"):
        main(["env"])


def test_a_reader_that_stops_early_is_no_error() -> None:
    command = f"{sys.executable} -m nnunet_ext.cli.main plan -tr UCITrainer --list"
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | true"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        build_parser().parse_args(["nothing"])
    assert exit_.value.code == 2
    assert "invalid choice: 'nothing'" in capsys.readouterr().err
