import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_ext.cli.main import build_parser
from nnunet_ext.phantom import demo
from nnunet_ext.phantom.demo import Step, clear_folder, demo_environment, demo_steps, find_program, run_demo, tail
from nnunet_ext.settings.uci import UCISettings
from nnunet_ext.utilities.errors import UsageError

TRAINERS = Path("trainers")


@pytest.fixture
def python_steps(monkeypatch):
    """Replace the steps by Python one-liners; `find_program` finds the interpreter."""

    def replace(*scripts):
        steps = [Step(f"part {i}", ("python", "-c", script)) for i, script in enumerate(scripts, 1)]
        monkeypatch.setattr(demo, "demo_steps", lambda _: steps)
        monkeypatch.setattr(demo, "find_program", lambda _: sys.executable)

    return replace


def commands(device="cpu"):
    return [step.command for step in demo_steps(device)]


def test_the_workflow_in_order():
    assert [" ".join(c[: 1 + (c[0] == "nnunet_ext")]) for c in commands()] == [
        "nnunet_ext phantom",
        "nnunet_ext convert",
        "nnunet_ext convert",
        "nnUNetv2_plan_and_preprocess",
        "nnunet_ext plan",
        "nnunet_ext link",
        "nnUNetv2_train",
        "nnUNetv2_predict",
        "nnunet_ext evaluate",
        "nnunet_ext report",
    ]


@pytest.mark.parametrize("command", [c for c in commands() if c[0] == "nnunet_ext"], ids=lambda c: " ".join(c[1:3]))
def test_our_commands_parse(command):
    build_parser([command[1]]).parse_args(command[1:])


def test_the_settings_are_valid():
    from nnunet_ext.cli.plan import parse_settings

    settings = UCISettings.from_dict(parse_settings([f"{key}={value}" for key, value in demo.SETTINGS.items()]))
    assert settings.num_epochs == int(demo.SETTINGS["num_epochs"])


def test_held_out_cases_are_the_last_ones():
    convert = commands()[1]
    held_out = convert[convert.index("--holdout") + 1 :]
    assert len(held_out) == demo.NUM_TEST_CTS
    assert held_out[-1] == f"volume-phantom-A-{demo.NUM_CTS:04d}"


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_the_device_reaches_training_and_prediction(device):
    with_device = [c for c in commands(device) if "-device" in c]
    assert [c[0] for c in with_device] == ["nnUNetv2_train", "nnUNetv2_predict"]
    assert all(c[c.index("-device") + 1] == device for c in with_device)


def test_environment_names_nnunet_folders_and_the_trainers():
    variables = demo_environment(TRAINERS)
    assert variables["nnUNet_raw"] == "$PWD/nnUNet_raw"
    assert variables["nnUNet_extTrainer"] == "trainers"


def test_steps_run_in_the_folder_with_the_variables_and_are_shown_and_kept(tmp_path, python_steps, capsys):
    python_steps(
        "import os; print('raw is', os.environ['nnUNet_raw']); open('one', 'w')",
        "import os; assert os.path.isfile('one'); print('second')",
    )
    run_demo(tmp_path / "out", "cpu", TRAINERS)
    shown = capsys.readouterr().out
    assert "[1/2] part 1\n  $ python -c" in shown
    assert shown.count("done in 0:0") == 2
    log = (tmp_path / "out" / "demo.log").read_text()
    assert f"raw is {tmp_path / 'out' / 'nnUNet_raw'}\n" in log
    assert log.index("$ python") < log.index("raw is") < log.index("second")


def test_the_script_is_the_same_workflow(tmp_path, python_steps):
    python_steps("import os; open('result', 'a').write(os.environ['nnUNet_results'])")
    run_demo(tmp_path / "out", "cpu", TRAINERS, quiet=True)
    folder = tmp_path / "copy"
    folder.mkdir()
    script = (tmp_path / "out" / "commands.sh").read_text().replace("python -c", f"{shlex.quote(sys.executable)} -c")
    subprocess.run(["sh", "-c", script], cwd=folder, check=True)
    assert (folder / "result").read_text() == str(folder / "nnUNet_results")


def test_quiet_prints_nothing(tmp_path, python_steps, capsys):
    python_steps("print('hello')")
    run_demo(tmp_path / "out", "cpu", TRAINERS, quiet=True)
    assert capsys.readouterr().out == ""


def test_a_failing_step_names_command_log_and_last_output(tmp_path, python_steps):
    python_steps("print('fine')", "print('old\\n' * 50); raise SystemExit('the disk is full')", "open('third', 'w')")
    with pytest.raises(UsageError) as caught:
        run_demo(tmp_path / "out", "cpu", TRAINERS, quiet=True)
    message = str(caught.value)
    assert "step 'part 2' failed with exit code 1" in message
    assert "command: python -c" in message
    assert str(tmp_path / "out" / "demo.log") in message
    assert message.endswith("the disk is full")
    assert not (tmp_path / "out" / "third").exists()


def test_a_second_run_replaces_the_first(tmp_path, python_steps):
    out = tmp_path / "out"
    python_steps("import os; os.makedirs('phantoms'); open('phantoms/x', 'w'); open('nnUNet_raw/y', 'w')")
    run_demo(out, "cpu", TRAINERS, quiet=True)
    (out / "notes.txt").write_text("the user's")
    run_demo(out, "cpu", TRAINERS, quiet=True)
    assert (out / "demo.log").read_text().count("$ python") == 1
    assert (out / "notes.txt").read_text() == "the user's"


def test_foreign_folders_are_refused(tmp_path):
    (tmp_path / "phantoms").mkdir()
    with pytest.raises(UsageError, match="is not empty and not the output of an earlier demo"):
        clear_folder(tmp_path)
    (tmp_path / "commands.sh").write_text("#!/bin/sh\n# mine\n")
    with pytest.raises(UsageError, match="not the output of an earlier demo"):
        clear_folder(tmp_path)
    with pytest.raises(UsageError, match="is not a folder"):
        clear_folder(tmp_path / "commands.sh")
    assert (tmp_path / "phantoms").is_dir()


def test_missing_program_is_named():
    with pytest.raises(UsageError, match=r"nnUNetv2_nonsense is not in .*pip install nnunet-ext"):
        find_program("nnUNetv2_nonsense")


def test_tail_shows_the_last_state_of_progress_bars(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"first\n\n10%\r50%\r100%\n  \nlast\xff\n")
    assert tail(log, 2) == "100%\nlast\N{REPLACEMENT CHARACTER}"


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_being_stopped_ends_children_and_grandchildren(tmp_path, number):
    worker = "import os, time; open(f'pid{os.getpid()}', 'w'); time.sleep(60)"
    step = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {worker!r}]); {worker}"
    script = (
        "import sys; from nnunet_ext.cli.main import main; from nnunet_ext.phantom import demo\n"
        f"demo.demo_steps = lambda _: [demo.Step('wait', ('python', '-c', {step!r}))]\n"
        "demo.find_program = lambda _: sys.executable\n"
        "sys.exit(main(['demo', '-o', 'out']))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(demo.__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while len(pids := [int(f.name[3:]) for f in tmp_path.glob("out/pid*")]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error == b"nnunet_ext demo: interrupted\n"
    time.sleep(0.2)
    assert not [pid for pid in pids if _runs(pid)]


def _runs(pid):
    """Whether a process exists and is no zombie."""
    state = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        return state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
