import zipfile
from pathlib import Path

import numpy as np
import pytest
from toy_relations import make_matrices

from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.relation_record import (
    FILE_NAME,
    GENERAL,
    NON_TARGET,
    TARGET,
    differences,
    read_relations,
    write_relations,
)


def test_what_was_written_is_read_in_half_precision(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    assert read_relations(path) == {}
    written = {epoch: make_matrices(epoch) for epoch in (7, 0, 3)}
    write_relations(path, written)
    found = read_relations(path)
    assert list(found) == [0, 3, 7]
    for epoch, matrices in found.items():
        for name, matrix in matrices.items():
            assert matrix.dtype == np.float16
            assert np.array_equal(matrix, written[epoch][name].astype(np.float16))
    with np.load(path, allow_pickle=False) as file:
        assert file["epochs"].tolist() == [0, 3, 7] and file[GENERAL].shape == (3, 6, 6)
    assert [entry.name for entry in tmp_path.iterdir()] == [FILE_NAME]


def test_without_epochs_there_is_no_file(tmp_path: Path) -> None:
    write_relations(tmp_path / FILE_NAME, {0: make_matrices(0)})
    write_relations(tmp_path / FILE_NAME, {})
    write_relations(tmp_path / FILE_NAME, {})
    assert list(tmp_path.iterdir()) == []


def test_the_paper_of_480_channels_stays_small(tmp_path: Path) -> None:
    square = np.random.default_rng(0).normal(size=(480, 480)).astype(np.float32)
    write_relations(tmp_path / FILE_NAME, dict.fromkeys(range(8), dict.fromkeys((NON_TARGET, GENERAL, TARGET), square)))
    assert (tmp_path / FILE_NAME).stat().st_size < 12e6


class Pickled:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("ran"),)


def test_reading_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(FILE_NAME, epochs=np.array([Pickled()], object), **make_matrices(0))
    with pytest.raises(UsageError, match=r"relations\.npz is no file of relation matrices .*allow_pickle=False"):
        read_relations(Path(FILE_NAME))
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "epochs"),
        ({"epochs": [0, 1]}, "epochs"),
        ({"epochs": [0], GENERAL: np.zeros((1, 3, 3))}, "epochs"),
        ({"epochs": [0], GENERAL: np.zeros((1, 3, 3)), TARGET: np.zeros((1, 4, 4))}, r"\(1, 4, 4\)"),
        ({"epochs": [0], GENERAL: np.zeros((1, 3, 4)), TARGET: np.zeros((1, 3, 4))}, r"\(1, 3, 4\)"),
        ({"epochs": [0, 1], GENERAL: np.zeros((1, 3, 3)), TARGET: np.zeros((1, 3, 3))}, r"\[0, 1\]"),
        ({"epochs": [4, 4], GENERAL: np.zeros((2, 3, 3)), TARGET: np.zeros((2, 3, 3))}, r"\[4, 4\]"),
        ({"epochs": "a", GENERAL: np.zeros((1, 3, 3)), TARGET: np.zeros((1, 3, 3))}, ""),
    ],
)
def test_another_content_is_told(tmp_path: Path, content: dict[str, object], reason: str) -> None:
    np.savez(tmp_path / FILE_NAME, **content)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"{FILE_NAME} is no file of relation matrices .*{reason}.*; delete it"):
        read_relations(tmp_path / FILE_NAME)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    write_relations(path, {0: make_matrices(0)})
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        data = file.getinfo(f"{TARGET}.npy").header_offset + 90
    flipped = whole[:data] + bytes([whole[data] ^ 0xFF]) + whole[data + 1 :]
    np.save(tmp_path / "array.npy", np.zeros(3))
    array = (tmp_path / "array.npy").read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], flipped, array):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="delete it"):
            read_relations(path)


def test_differences_are_absolute_and_need_both() -> None:
    identity, half = np.eye(2, dtype=np.float16), np.full((2, 2), 0.5, np.float16)
    found = differences({NON_TARGET: half, GENERAL: identity, TARGET: half})
    assert list(found) == ["|R_G(non-target) - R_G(target)|", "|R_G(target) - R_T(target)|"]
    assert all((difference == 0.5).all() for difference in found.values())
    assert list(differences({GENERAL: identity, TARGET: half})) == ["|R_G(target) - R_T(target)|"]
