"""Which modalities of a multi-modal model each case has; decided by its files, never by the values in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_ext.inference.cases import ReadImages, holds_all_channels
from nnunet_ext.settings.maml import MAMLSettings, modality_channels
from nnunet_ext.utilities.errors import UsageError

Modalities = Mapping[str, tuple[int, ...]]
"""Name of every modality -> its input channels, in the order of the network's streams."""
LISTED_AT_MOST = 20


@dataclass(frozen=True)
class CaseFiles:
    """What is read of one case.

    Attributes:
        files: in order of their channels; one alone may hold all channels (RGB image, 4D volume).
        channels: those that are used.
        modalities: the same as positions in the network's streams.
        num_channels: of the network's input.
    """

    files: tuple[str, ...]
    channels: tuple[int, ...]
    modalities: tuple[int, ...]
    num_channels: int

    def __getitem__(self, index: int) -> str:
        """A file; the host names a case by its first."""
        return self.files[index]


def modalities_of(network: Any, plans: dict[str, Any], dataset_json: dict[str, Any]) -> Modalities:
    """The modalities that a trained network can do without; empty for one that needs all channels.

    Raises:
        UsageError: plans and data set do not describe two modalities or more.
    """
    if not hasattr(network, "select_modalities"):
        return {}
    return modality_channels(MAMLSettings.from_plans(plans), dataset_json)


def choose_modalities(text: str, modalities: Modalities) -> tuple[int, ...]:
    """Positions, sorted, of the modalities in a list as ``T1ce,FLAIR`` (names in any case) or ``1,3``.

    Raises:
        UsageError: an unknown one, or none; lists those of the model.
    """
    lower = [name.lower() for name in modalities]
    chosen = set()
    for word in (word.strip() for word in text.split(",")):
        if word in modalities:
            chosen.add(list(modalities).index(word))
        elif lower.count(word.lower()) == 1:
            chosen.add(lower.index(word.lower()))
        elif word.isdecimal() and int(word) < len(modalities):
            chosen.add(int(word))
        else:
            known = ", ".join(f"{name} ({position})" for position, name in enumerate(modalities))
            raise UsageError(f"--modalities {text}: {word!r} is no modality of this model; it has {known}")
    return tuple(sorted(chosen))


def numbered_channels(files: Sequence[str], file_ending: str) -> dict[int, str]:
    """Channel -> file of one case, by the names ``CASE_0000.nii.gz, CASE_0002.nii.gz, ...``."""
    return {int(file.removesuffix(file_ending)[-4:]): file for file in files}


def choose_files(
    cases: Sequence[Mapping[int, str]],
    modalities: Modalities,
    chosen: Sequence[int],
    file_ending: str,
    read_images: ReadImages,
) -> list[CaseFiles]:
    """What to read of each case: the modalities among `chosen` that it has.

    Args:
        cases: channel -> file of each case; channel 0 alone may be a file that holds all of them.
        modalities: of the model.
        chosen: positions of the modalities that may be used.
        file_ending: as ``.nii.gz``.
        read_images: of the host's reader, to tell a file of all channels.

    Raises:
        UsageError: a case with none of them, with a part of one, or with a file for no channel; names all.
    """
    outcomes = [_choose(files, modalities, chosen, file_ending, read_images) for files in cases]
    problems = [outcome for outcome in outcomes if isinstance(outcome, str)]
    if problems:
        raise UsageError(f"{'; '.join(problems)} (modalities of this model: {_spelled(modalities)})")
    return [outcome for outcome in outcomes if isinstance(outcome, CaseFiles)]


def _choose(
    files: Mapping[int, str],
    modalities: Modalities,
    chosen: Sequence[int],
    file_ending: str,
    read_images: ReadImages,
) -> CaseFiles | str:
    """What to read of one case, or what is wrong with it."""
    groups, names = list(modalities.values()), list(modalities)
    num_channels = sum(map(len, groups))
    case = case_name(next(iter(files.values())), file_ending)
    whole = list(files) == [0] and holds_all_channels(files[0], num_channels, read_images)
    there = set(range(num_channels)) if whole else set(files)
    if surplus := sorted(there - set(range(num_channels))):
        return f"case {case} has no channel for {_listed(files, surplus)}"
    for i in chosen:
        absent = [channel for channel in groups[i] if channel not in there]
        if 0 < len(absent) < len(groups[i]):
            missing = ", ".join(f"{channel:04d}" for channel in absent)
            return f"case {case} has only a part of {names[i]}: give channel {missing} too, or none of it"
    used = tuple(i for i in chosen if groups[i][0] in there)
    if not used:
        return f"case {case} has none of {', '.join(names[i] for i in chosen)}, only {_listed(files, files)}"
    channels = tuple(sorted(channel for i in used for channel in groups[i]))
    read = (files[0],) if whole else tuple(files[channel] for channel in channels)
    return CaseFiles(read, channels, used, num_channels)


def case_name(file: str, file_ending: str) -> str:
    """``CASE`` of ``CASE_0001.nii.gz``."""
    return Path(file).name.removesuffix(file_ending)[: -len("_0000")]


def incomplete_cases(
    cases: Sequence[CaseFiles], modalities: Modalities, chosen: Sequence[int], file_ending: str
) -> str:
    """``"2 of 3 cases lack modalities: b (has T1, FLAIR), c (has T2)"``, of the `chosen` ones; empty if none does."""
    names = list(modalities)
    found = [
        f"{case_name(case[0], file_ending)} (has {', '.join(names[i] for i in case.modalities)})"
        for case in cases
        if len(case.modalities) < len(chosen)
    ]
    more = f" and {len(found) - LISTED_AT_MOST} more" if len(found) > LISTED_AT_MOST else ""
    listed = ", ".join(found[:LISTED_AT_MOST])
    return f"{len(found)} of {len(cases)} cases lack modalities: {listed}{more}" if found else ""


@contextmanager
def selected_modalities(network: Any, modalities: Sequence[int] | None) -> Iterator[None]:
    """Inside, the network runs these streams only; None leaves it alone. Afterwards, also on error, it runs all."""
    if modalities is None:
        yield
        return
    network.select_modalities(modalities)
    try:
        yield
    finally:
        network.select_modalities(None)


def _listed(files: Mapping[int, str], channels: Iterable[int]) -> str:
    return ", ".join(Path(files[channel]).name for channel in channels)


def _spelled(modalities: Modalities) -> str:
    """``0000 T1, 0001 T1ce``."""
    return ", ".join(f"{' '.join(f'{channel:04d}' for channel in group)} {name}" for name, group in modalities.items())
