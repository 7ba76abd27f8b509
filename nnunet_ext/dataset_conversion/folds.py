"""Cross-validation folds in which no patient is on both sides."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping

from nnunet_ext.utilities.errors import UsageError

Fold = dict[str, list[str]]
SEED = 12345


def shuffled(names: Iterable[str], seed: int = SEED) -> list[str]:
    """Names in an order that depends on the seed and the names alone: sorted by a hash of both.

    Unlike a random generator this gives the same order on every platform and in every version of Python, and adding a
    name does not reorder the others.
    """
    return sorted(set(names), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())


def patient_folds(patients: Mapping[str, str], number: int = 5, seed: int = SEED) -> list[Fold]:
    """`number` folds over the cases of `patients` (case name -> patient), or one per patient if there are fewer.

    Every case validates in exactly one fold and trains in all others; all cases of a patient go together. Patients are
    dealt to the fold with the fewest cases, those with most cases first, so that fold sizes differ by no more than the
    cases of one patient.

    Raises:
        UsageError: fewer than two patients.
    """
    cases_of: dict[str, list[str]] = defaultdict(list)
    for case, patient in patients.items():
        cases_of[patient].append(case)
    if len(cases_of) < 2:
        raise UsageError(
            f"cross-validation needs training cases of at least 2 patients, got {len(cases_of)}"
            f" ({', '.join(sorted(patients)) or 'no case'}); add data or hold out fewer cases"
        )
    validation: list[list[str]] = [[] for _ in range(min(number, len(cases_of)))]
    for patient in sorted(shuffled(cases_of, seed), key=lambda p: -len(cases_of[p])):
        min(validation, key=len).extend(cases_of[patient])
    return [{"train": sorted(set(patients) - set(cases)), "val": sorted(cases)} for cases in validation]
