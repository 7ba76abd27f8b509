import csv
from pathlib import Path

import numpy as np
import pytest
from toy_relations import make_matrices, make_run

from nnunet_ext.evaluation.relations import COURSE_CSV, COURSE_PNG, MATRICES_PNG, RelationRun, read_relation_run
from nnunet_ext.evaluation.report.model import Model
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.relation_record import FILE_NAME


def read(folder: Path, fold: str = "0") -> RelationRun:
    return read_relation_run(Model.open(folder, fold))


def test_matrices_of_kept_epochs_and_series_of_all(tmp_path: Path) -> None:
    run = read(make_run(tmp_path))
    assert list(run.kept) == [0, 2, 4]
    for epoch, matrices in run.kept.items():
        for name, matrix in make_matrices(epoch).items():
            assert np.allclose(matrices[name], matrix, atol=1e-3)
    assert list(run.series) == ["relation/general", "relation/target", "relation/general_rank", "relation/weight"]
    assert run.series["relation/general"] == [0.5, 0.4375, 0.375, 0.3125, 0.25]


def test_table_of_the_kept_epochs(tmp_path: Path) -> None:
    head, *rows = read(make_run(tmp_path)).table().splitlines()
    assert head == "epoch  d(R_G(non-target), R_G(target))  d(R_G(target), R_T(target))  rank of F_G"
    assert [row.split() for row in rows] == [
        ["0", "0.5000", "0.2500", "0.5000"],
        ["2", "0.3750", "0.3750", "0.5000"],
        ["4", "0.2500", "0.5000", "0.5000"],
    ]
    assert {len(row) for row in rows} == {len(head)}


def test_figures_and_a_csv_of_all_epochs(tmp_path: Path) -> None:
    written = read(make_run(tmp_path)).save(tmp_path / "out")
    assert written == [tmp_path / "out" / name for name in (MATRICES_PNG, COURSE_PNG, COURSE_CSV)]
    assert sorted(written) == sorted((tmp_path / "out").iterdir())
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written[:2])
    with written[2].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == list("01234")
    assert [float(row["target"]) for row in rows] == [0.25, 0.3125, 0.375, 0.4375, 0.5]
    assert [row["general_rank"] for row in rows] == ["0.5", "", "0.5", "0.5", "0.5"], "no value is an empty cell"


def test_an_epoch_that_is_not_finished_is_left_out(tmp_path: Path) -> None:
    assert list(read(make_run(tmp_path, kept=(0, 2, 5), epochs=5)).kept) == [0, 2]


@pytest.mark.parametrize("name", [FILE_NAME, "progress.csv"])
def test_a_run_without_files_tells_how_to_get_them(tmp_path: Path, name: str) -> None:
    folder = make_run(tmp_path)
    (folder / "fold_0" / name).unlink()
    command = "nnUNetv2_train Dataset201_Slices 2d 0 -tr RDCLTrainer -p nnUNetPlans_full --c"
    with pytest.raises(UsageError, match=rf"fold_0 has no relations\.npz .* or go on with: {command}$"):
        read(folder)


def test_a_run_without_relation_losses(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="with ablation=baseline, without relation losses: .* another ablation"):
        read(make_run(tmp_path, ablation="baseline", kept=()))


def test_a_model_of_another_trainer(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="was trained by UCITrainer, .* name a model of RDCLTrainer"):
        read(make_run(tmp_path, trainer="UCITrainer"))
