"""Which epochs' relation matrices a run keeps, and how that survives a crash and ``--c``."""

from __future__ import annotations

from pathlib import Path

from nnunet_ext.utilities.relation_record import FILE_NAME, Matrices, read_relations, write_relations

NUM_KEPT = 8
"""At 480 channels 1.4 MB each."""


def kept_epochs(num_epochs: int) -> list[int]:
    """The first, the last and evenly spaced epochs between, ascending; all where there are at most `NUM_KEPT`."""
    last = num_epochs - 1
    return sorted({round(number * last / (NUM_KEPT - 1)) for number in range(NUM_KEPT)})


def keep_relations(folder: Path, epoch: int, num_epochs: int, matrices: Matrices) -> None:
    """Add the matrices of an epoch that `kept_epochs` names to ``relations.npz``; without matrices, nothing happens.

    Call it before a checkpoint is written that counts this epoch as done.
    """
    if not matrices or epoch not in kept_epochs(num_epochs):
        return
    path = folder / FILE_NAME
    write_relations(path, {**read_relations(path), epoch: matrices})


def forget_relations(folder: Path, first_epoch: int) -> None:
    """Drop `first_epoch` and later ones, which a run that starts there will make again.

    Raises:
        UsageError: a run that goes on finds a damaged file.
    """
    path = folder / FILE_NAME
    kept = read_relations(path) if first_epoch > 0 else {}
    write_relations(path, {epoch: matrices for epoch, matrices in kept.items() if epoch < first_epoch})
