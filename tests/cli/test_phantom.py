import json

import pytest

from nnunet_ext.cli.main import build_parser, main


def run(*arguments):
    """`main` with the parser of this one command."""
    return main(["phantom", *map(str, arguments)])


def test_phantoms_are_read_by_the_converters(tmp_path, monkeypatch, capsys):
    assert run(tmp_path / "p", "--cts", 4, "--xrays", 6, "--others", 3, "--shape", 16, 32, 32, "-np", 2, "--quiet") == 0
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    (tmp_path / "raw").mkdir()
    held_out = "volume-phantom-A-0004"
    convert = ["--quiet", "-np", "1"]
    assert (
        main(["convert", "covid19_20", f"{tmp_path}/p/covid19_20", "--id", "990", "--holdout", held_out, *convert]) == 0
    )
    assert main(["convert", "chestxr", f"{tmp_path}/p/chestxr", "--id", "991", *convert]) == 0
    assert main(["convert", "msd", f"{tmp_path}/p/Task90_OtherLesions", "--id", "992", *convert]) == 0
    others = tmp_path / "raw" / "Dataset992_OtherLesions"
    assert json.loads((others / "dataset.json").read_text())["labels"] == {"background": 0, "lesion": 1}
    assert len(list((others / "labelsTr").iterdir())) == 3
    raw = tmp_path / "raw" / "Dataset990_COVID1920"
    assert sorted(f.name for f in (raw / "imagesTr").iterdir()) == [
        f"volume-phantom-A-000{i}_0000.nii.gz" for i in (1, 2, 3)
    ]
    assert (raw / "labelsTs" / f"{held_out}.nii.gz").is_file()
    xrays = json.loads((tmp_path / "raw" / "Dataset991_ChestXR" / "dataset.json").read_text())
    assert "healthy" in json.dumps(xrays)


def test_the_seed_decides(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run(tmp_path / name, "--cts", 0, "--xrays", 1, "--seed", seed, "-np", 1, "--quiet") == 0
    images = [(tmp_path / name / "chestxr/train/healthy/healthy-0001.png").read_bytes() for name in "abc"]
    assert images[0] == images[1] != images[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "8", "32", "32"], "shape (8, 32, 32)"),
        (["--seed", "-1"], "--seed -1"),
        (["--cts", "-2"], "--cts -2"),
        (["-np", "0"], "-np 0"),
    ],
)
def test_wrong_arguments_are_one_line_and_leave_nothing(tmp_path, capsys, arguments, message):
    assert run(tmp_path / "out", *arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused(tmp_path, capsys):
    (tmp_path / "mine").write_text("precious")
    assert run(tmp_path) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [f.name for f in tmp_path.iterdir()] == ["mine"]


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("nnunet_ext.phantom.sources.write_xray", fail)
    with pytest.raises(OSError, match="disk full"):
        run(tmp_path / "out", "--cts", 1, "--xrays", 1, "--shape", 16, 32, 32, "-np", 1, "--quiet")
    assert list(tmp_path.iterdir()) == []


def test_defaults():
    args = build_parser(["phantom"]).parse_args(["phantom", "OUT"])
    assert (args.cts, args.xrays, args.seed, tuple(args.shape)) == (10, 150, 0, (48, 96, 96))
