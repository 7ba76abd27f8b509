import json
import os
import signal
import subprocess
import sys
import time

import pytest
from toy_maml import write_cases, write_maml_model

from nnunet_ext.cli import predict
from nnunet_ext.cli.main import build_parser, main
from nnunet_ext.utilities.errors import UsageError


def parse(*arguments):
    return build_parser(["predict"]).parse_args(["predict", "-i", "in", "-o", "out", *arguments])


def test_takes_every_flag_of_the_host():
    model = "-d 115 -p P -tr T -c 3d_fullres -f 0 all -chk best.pth -device cpu --trust-checkpoint"
    how = "-step_size 0.7 --disable_tta --verbose --disable_progress_bar --not_on_device -npp 1 -nps 2"
    what = "--save_probabilities --continue_prediction -prev_stage_predictions F -num_parts 3 -part_id 1"
    args = parse(*f"{model} {how} {what}".split())
    assert (args.d, args.p, args.tr, args.c, args.f, args.chk) == (
        "115",
        "P",
        "T",
        "3d_fullres",
        [0, "all"],
        "best.pth",
    )
    assert (args.npp, args.nps, args.num_parts, args.part_id, args.step_size) == (1, 2, 3, 1, 0.7)


def test_defaults_are_the_hosts():
    args = parse("-d", "1", "-c", "2d")
    assert (args.p, args.tr, args.f, args.chk) == (
        "nnUNetPlans",
        "nnUNetTrainer",
        (0, 1, 2, 3, 4),
        "checkpoint_final.pth",
    )
    assert (args.step_size, args.device, args.npp, args.nps, args.num_parts) == (0.5, "cuda", 3, 3, 1)
    assert not args.trust_checkpoint


@pytest.mark.parametrize("arguments", [[], ["-d", "1"], ["-d", "1", "-c", "2d", "-m", "folder"]])
def test_the_model_is_named_in_one_way(arguments):
    with pytest.raises(UsageError, match="either by -d DATASET"):
        predict.model_folder(parse(*arguments))


def test_the_model_folder_is_the_hosts(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    (tmp_path / "Dataset901_Tiny").mkdir()
    args = parse("-d", "901", "-c", "2d", "-tr", "T", "-p", "P")
    assert predict.model_folder(args) == tmp_path / "Dataset901_Tiny" / "T__P__2d"


@pytest.mark.parametrize("flag,value", [("-step_size", "0"), ("-step_size", "2"), ("-part_id", "1"), ("-npp", "-1")])
def test_numbers_out_of_range_are_named(capsys, flag, value):
    assert main(["predict", "-i", "in", "-o", "out", "-m", "folder", flag, value]) == 1
    assert f"{flag} {value}" in capsys.readouterr().err


def test_unusable_models_are_one_line(tmp_path, capsys):
    assert main(["predict", "-i", "in", "-o", str(tmp_path / "o"), "-m", str(tmp_path / "m"), "-device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("nnunet_ext predict: error: model folder")
    assert error.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_predicts(trained_model, images, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_results", str(trained_model.parents[1]))
    model = ["-d", "901", "-c", "3d_fullres", "-f", "0", "-device", "cpu", "-npp", "0", "-nps", "0", "--quiet"]
    before = signal.getsignal(signal.SIGTERM)
    assert main(["predict", "-i", str(images), "-o", str(tmp_path / "out"), *model]) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    assert {"a.nii.gz", "b.nii.gz", "plans.json", "dataset.json"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == ""


def test_missing_channels_are_one_line(trained_model, images, tmp_path, capsys):
    (images / "a_0000.nii.gz").rename(images / "a_0001.nii.gz")
    model = ["-m", str(trained_model), "-f", "0", "-device", "cpu", "--quiet"]
    assert main(["predict", "-i", str(images), "-o", str(tmp_path / "out"), *model]) == 1
    assert "case a lacks a_0000.nii.gz; case a has no channel for a_0001.nii.gz" in capsys.readouterr().err


@pytest.fixture
def maml(tmp_path):
    """Flags that name a model of three modalities, and a folder of cases that lack some of them."""
    folder = write_maml_model(tmp_path / "maml", folds=(0,))
    images = write_cases(tmp_path / "cases", {"a": (0, 1, 2), "b": (1,)})
    return ["-m", str(folder), "-f", "0", "-device", "cpu", "-npp", "0", "-nps", "0", "-i", str(images)]


def test_predicts_what_is_there(maml, tmp_path, capsys):
    assert main(["predict", *maml, "-o", str(tmp_path / "out"), "--disable_progress_bar"]) == 0
    assert {path.name for path in (tmp_path / "out").glob("*.nii.gz")} == {"a.nii.gz", "b.nii.gz"}
    assert "1 of 2 cases lack modalities: b (has T2)" in capsys.readouterr().out
    assert main(["predict", *maml, "-o", str(tmp_path / "out"), "--quiet", "--modalities", "flair"]) == 1
    error = capsys.readouterr().err
    assert "case b has none of FLAIR, only b_0001.nii.gz" in error and error.count("\n") == 1


def test_predicts_every_subset(maml, tmp_path, capsys):
    assert main(["predict", *maml, "-o", str(tmp_path / "out"), "--quiet", "--all-subsets", "--disable_tta"]) == 0
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 7 + 1
    assert (tmp_path / "out" / "T1+FLAIR" / "a.nii.gz").is_file()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("flags", [["--modalities", "CT"], ["--all-subsets"]])
def test_other_models_have_no_modalities_to_choose(trained_model, images, tmp_path, capsys, flags):
    model = ["-m", str(trained_model), "-f", "0", "-device", "cpu", "--quiet"]
    assert main(["predict", "-i", str(images), "-o", str(tmp_path / "out"), *model, *flags]) == 1
    error = capsys.readouterr().err
    assert f"{' '.join(flags)}: a model of nnUNetTrainer needs all channels" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_modalities_and_all_subsets_exclude_each_other(capsys):
    with pytest.raises(SystemExit):
        parse("--modalities", "T1", "--all-subsets")
    assert "not allowed with argument" in capsys.readouterr().err


def processes_of_session(leader):
    """Command lines of the processes, zombies excepted, in the session that `leader` began; some take a moment."""
    for _ in range(50):
        command = ["ps", "-e", "-o", "sid=,stat=,args="]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        fields = [line.split(maxsplit=2) for line in listing.splitlines()]
        left = [words for session, state, words in fields if int(session) == leader and state[0] != "Z"]
        if not left:
            break
        time.sleep(0.1)
    return left


def start(arguments):
    command = [sys.executable, "-m", "nnunet_ext.cli.main", "predict", *arguments]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_predicts_in_several_processes(trained_model, images, tmp_path):
    model = ["-m", str(trained_model), "-f", "0", "1", "-device", "cpu", "-npp", "2", "-nps", "2"]
    process = start(["-i", str(images), "-o", str(tmp_path / "out"), *model])
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert {"a.nii.gz", "b.nii.gz"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert f"segmentations are in {tmp_path / 'out'}" in out


@pytest.mark.slow
@pytest.mark.parametrize("sent,code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_no_process_and_no_partial_file(trained_model, images, tmp_path, sent, code):
    for i in range(60):
        os.link(images / "a_0000.nii.gz", images / f"more{i:02d}_0000.nii.gz")
    output = tmp_path / "out"
    model = ["-m", str(trained_model), "-f", "0", "1", "-device", "cpu", "-npp", "1", "-nps", "1", "-step_size", "0.1"]
    process = start(["-i", str(images), "-o", str(output), *model])
    deadline = time.monotonic() + 300
    while not list(output.glob("*.nii.gz")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # as the terminal does
    else:
        process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert processes_of_session(process.pid) == []
    written = [path.name for path in output.iterdir()]
    assert 0 < sum(name.endswith(".nii.gz") for name in written) < 62
    assert [name for name in written if name.startswith(".")] == []
    for name in ("plans.json", "dataset.json"):
        json.loads((output / name).read_text())
