import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_ext.trainers.relation_history import NUM_KEPT, forget_relations, keep_relations, kept_epochs
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.relation_record import FILE_NAME, GENERAL, TARGET, read_relations


@given(st.integers(1, 5000))
def test_the_first_the_last_and_evenly_spaced_epochs_are_kept(num_epochs: int) -> None:
    kept = kept_epochs(num_epochs)
    assert kept[0] == 0 and kept[-1] == num_epochs - 1
    assert len(kept) == min(num_epochs, NUM_KEPT)
    assert kept == sorted(set(kept))
    gaps = np.diff(kept)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


def test_of_a_full_training() -> None:
    assert kept_epochs(1000) == [0, 143, 285, 428, 571, 714, 856, 999]


def matrices(value: float) -> dict[str, np.ndarray]:
    return {name: np.full((2, 2), value, np.float32) for name in (GENERAL, TARGET)}


def train(folder: Path, first: int, end: int, num_epochs: int, run: int) -> None:
    """Epochs `first` to `end` of run number `run`, as the trainer calls it; the matrices tell the run."""
    forget_relations(folder, first)
    for epoch in range(first, end):
        keep_relations(folder, epoch, num_epochs, matrices(run))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_crashes_neither_duplicate_nor_lose_epochs(data: st.DataObject) -> None:
    """A run dies in some epoch after some checkpoint, and goes on from that checkpoint; several times."""
    num_epochs = data.draw(st.integers(1, 20))
    run_of_epoch: dict[int, int] = {}
    start = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for run in range(data.draw(st.integers(1, 4))):
            end = data.draw(st.integers(start, num_epochs))
            train(folder, start, end, num_epochs, run)
            run_of_epoch |= dict.fromkeys(range(start, end), run)
            start = data.draw(st.integers(0, end))
        run_of_epoch |= dict.fromkeys(range(start, num_epochs), 9)
        train(folder, start, num_epochs, num_epochs, 9)
        found = read_relations(folder / FILE_NAME)
    assert list(found) == kept_epochs(num_epochs)
    assert all((found[epoch][TARGET] == run_of_epoch[epoch]).all() for epoch in found)


def test_nothing_of_the_epochs_that_a_continued_run_makes_again(tmp_path: Path) -> None:
    train(tmp_path, 0, 6, 6, run=1)
    forget_relations(tmp_path, 3)
    assert list(read_relations(tmp_path / FILE_NAME)) == [0, 1, 2]


def test_a_longer_run_keeps_what_it_had(tmp_path: Path) -> None:
    train(tmp_path, 0, 15, 15, run=1)
    train(tmp_path, 15, 29, 29, run=2)
    kept = list(read_relations(tmp_path / FILE_NAME))
    assert kept == sorted({*kept_epochs(15), *(epoch for epoch in kept_epochs(29) if epoch >= 15)})


def test_a_new_run_starts_without_a_file_whatever_is_there(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("damaged")
    with pytest.raises(UsageError, match="delete it"):
        forget_relations(tmp_path, 1)
    forget_relations(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


def test_without_relation_losses_no_file(tmp_path: Path) -> None:
    forget_relations(tmp_path, 0)
    keep_relations(tmp_path, 0, 4, {})
    assert list(tmp_path.iterdir()) == []
