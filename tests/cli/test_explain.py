import subprocess
import sys
from pathlib import Path

import pytest
from toy import REPOSITORY
from toy_maml import write_cases, write_maml_model
from toy_relations import make_run

from nnunet_ext.cli.main import main

NAMES = ["relation_course.csv", "relation_course.png", "relation_matrices.png"]
RELATION = ["explain", "relation"]
ATTENTION = ["explain", "attention"]
IN_THIS_PROCESS = ["-device", "cpu", "--disable_tta", "-npp", "0", "-nps", "0"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_topics_and_their_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in ((["explain"], "relation"), (RELATION, "Figs. 5 and 6"), (ATTENTION, "Fig. 2")):
        with pytest.raises(SystemExit) as exit_:
            main([*arguments, "--help"])
        assert exit_.value.code == 0 and expected in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit_:
        main(["explain"])
    assert exit_.value.code == 2 and "TOPIC" in capsys.readouterr().err


@pytest.mark.parametrize("topic", ["relation", "attention"])
def test_help_of_a_topic_imports_nothing_heavy(topic: str) -> None:
    code = "import sys; from nnunet_ext.cli.main import main\n"
    code += f"try: main(['explain', '{topic}', '--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'numpy', 'matplotlib') if m in sys.modules], file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert result.stderr.strip() == "[]"


def test_beside_the_model_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fold = make_run(tmp_path) / "fold_0"
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path))
    assert main([*RELATION, "-d", "201", "-c", "2d", "-tr", "RDCLTrainer", "-p", "nnUNetPlans_full", "-f", "0"]) == 0
    assert names(fold / "explain") == NAMES
    printed = capsys.readouterr().out
    assert printed.startswith("fold_0:\nepoch  d(R_G(non-target), R_G(target))") and printed.count("\n") == 6
    assert all(str(fold / "explain" / name) in printed for name in NAMES)


def test_several_folds_get_a_folder_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, fold="all")
    folder = make_run(tmp_path, fold="1", kept=(0,), epochs=1)
    output = tmp_path / "out"
    assert main([*RELATION, "-m", str(folder), "-f", "1", "all", "1", "-o", str(output)]) == 0
    assert names(output) == ["fold_1", "fold_all"]
    assert all(names(output / name) == NAMES for name in names(output))
    assert capsys.readouterr().out.count("wrote ") == 2
    assert main([*RELATION, "-m", str(folder), "-f", "1", "-o", str(output / "one")]) == 0
    assert names(output / "one") == NAMES


@pytest.mark.parametrize("arguments", [["explain", "--quiet", "relation"], [*RELATION, "--quiet"]])
def test_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    folder = make_run(tmp_path)
    before, after = arguments[: arguments.index("relation") + 1], arguments[arguments.index("relation") + 1 :]
    assert main([*before, "-m", str(folder), *after]) == 0
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "")


def test_errors_are_one_line_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path)
    (make_run(tmp_path, fold="1") / "fold_1" / "relations.npz").unlink()
    other = make_run(tmp_path, trainer="BaselineTrainer")
    for arguments, message in (
        (["-m", str(folder / "absent")], "is no model folder"),
        (["-m", str(other)], "was trained by BaselineTrainer"),
        (["-m", str(folder), "-f", "0", "3"], "-f 3: .* has no fold_3; folds here: 0, 1".replace(".*", str(folder))),
        (["-m", str(folder), "-f", "0", "1"], f"{folder / 'fold_1'} has no relations.npz"),
        ([], "name the model either by -d DATASET"),
    ):
        assert main([*RELATION, *arguments, "-o", str(tmp_path / "out")]) == 1
        error = capsys.readouterr().err
        assert error.startswith("nnunet_ext explain: error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_attention_beside_the_model_is_in_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(variable, str(tmp_path))
    folder = write_maml_model(tmp_path / "Dataset043_Toy" / "MAMLTrainer__nnUNetPlans__3d_fullres")
    cases = write_cases(tmp_path / "cases", {"a": (0, 1, 2), "b": (0, 2), "c": (1,)})
    arguments = [*ATTENTION, "-i", str(cases), "-d", "43", "-c", "3d_fullres", *IN_THIS_PROCESS]
    assert main([*arguments, "-f", "0", "--modalities", "t1,FLAIR"]) == 1
    assert "case c has none of T1, FLAIR" in capsys.readouterr().err
    assert main([*arguments, "-f", "0"]) == 0
    printed = capsys.readouterr().out
    output = folder / "fold_0" / "attention"
    maps = ["FLAIR.nii.gz", "T1.nii.gz", "T2.nii.gz"]
    assert names(output) == sorted(
        ["a_attention.png", "attention.csv", "b_attention.png"]
        + [f"a_attention_{name}" for name in maps]
        + [f"b_attention_{name}" for name in maps[:2]]
    )
    assert "1 of 3 cases left out" in printed and "mean A_i over the image\ncase     T1" in printed
    assert printed.endswith(f"attention.csv are in {output}\n")
    assert main(["report", str(folder), "-o", str(tmp_path / "report.html"), "--quiet"]) == 0
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "MAMLTrainer, fold_0" in html and html.count('<img src="data:image/png') == 2


def test_attention_of_several_folds_is_their_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_maml_model(tmp_path / "MAMLTrainer__nnUNetPlans__3d_fullres")
    cases = write_cases(tmp_path / "cases", {"a": (0, 1)})
    arguments = [*ATTENTION, "-i", str(cases), "-m", str(folder), *IN_THIS_PROCESS, "--quiet"]
    found = {}
    for folds, output in (("0", "fold_0/attention"), ("1", "fold_1/attention"), ("0 1", "attention")):
        assert main([*arguments, "-f", *folds.split()]) == 0
        lines = (folder / output / "attention.csv").read_text().splitlines()[1:]
        found[folds] = [float(line.split(",")[2]) for line in lines]
    assert found["0 1"] == pytest.approx([(a + b) / 2 for a, b in zip(found["0"], found["1"], strict=True)], abs=1e-3)
    assert found["0"] != pytest.approx(found["1"], abs=2e-3)
    assert main([*arguments, "-f", "1", "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "attention.csv").is_file()
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "")


def test_attention_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_maml_model(tmp_path / "E", settings={"ablation": "ensemble"}, folds=(0,))
    cases = write_cases(tmp_path / "cases", {"a": (0, 1)})
    for more, message in (
        ([], "with ablation=ensemble"),
        (["-f", "3"], "has no fold_3/checkpoint_final.pth"),
        (["-npp", "-1"], "-npp -1 must be 0"),
    ):
        arguments = [*ATTENTION, "-i", str(cases), "-m", str(folder), "-f", "0", *IN_THIS_PROCESS, *more]
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("nnunet_ext explain: error: ") and message in error and error.count("\n") == 1
