import subprocess
import sys
from pathlib import Path

import pytest
from toy import REPOSITORY
from toy_relations import make_run

from nnunet_ext.cli.main import main

NAMES = ["relation_course.csv", "relation_course.png", "relation_matrices.png"]
RELATION = ["explain", "relation"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_topic_and_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, expected in ((["explain"], "relation"), (RELATION, "Figs. 5 and 6")):
        with pytest.raises(SystemExit) as exit_:
            main([*arguments, "--help"])
        assert exit_.value.code == 0 and expected in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit_:
        main(["explain"])
    assert exit_.value.code == 2 and "TOPIC" in capsys.readouterr().err


def test_help_of_the_topic_imports_nothing_heavy() -> None:
    code = "import sys; from nnunet_ext.cli.main import main\n"
    code += "try: main(['explain', 'relation', '--help'])\nexcept SystemExit: pass\n"
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
