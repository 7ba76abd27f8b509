"""From a planned conversion to a data set in ``nnUNet_raw``: whole or not at all, and only if something changed."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_ext import __version__
from nnunet_ext.dataset_conversion.base import BadCaseError, Case, Conversion, Entry, place
from nnunet_ext.utilities.datasets import RELATIONS_KEY, Folder, nnunet_folder, relations
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json, save_json, sha256
from nnunet_ext.utilities.parallel import run_parallel

MANIFEST = "manifest.json"
SPLITS = "splits_final.json"
OF_CONVERTERS = ("classification", "labels", "modality_names")
"""What converters, not ``nnunet_ext link``, write beside the relations in dataset.json."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a conversion did: the folder, whether it was written now, and its manifest."""

    folder: Path
    written: bool
    manifest: dict[str, Any]


def full_name(dataset_id: int, name: str) -> str:
    """``(115, "COVID1920")`` -> ``"Dataset115_COVID1920"``.

    Raises:
        UsageError: nnU-Net cannot use the ID or the name.
    """
    if not 1 <= dataset_id <= 999:
        raise UsageError(f"--id {dataset_id} is outside the range [1, 999]")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UsageError(f"--name {name!r} may hold letters, digits, - and _ only")
    return f"Dataset{dataset_id:03d}_{name}"


def convert(
    conversion: Conversion,
    name: str,
    *,
    holdout: Sequence[str] = (),
    processes: int = 4,
    overwrite: bool = False,
    skip_bad: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Write `conversion` to ``$nnUNet_raw/{name}``, unless it is there already.

    Everything is written to a hidden folder beside the target and renamed at the end, so that an error, a crash of a
    worker or Ctrl-C leaves what was there before.

    Args:
        conversion: the plan of a converter.
        name: full name, ``Dataset115_COVID1920``.
        holdout: names of cases that become test cases.
        processes: worker processes; the result does not depend on their number.
        overwrite: replace a data set that differs.
        skip_bad: convert the rest when cases are bad; the manifest names them and their reasons.
        quiet: no progress bar.

    Raises:
        UsageError: bad cases (all are named), an unknown name in `holdout`, a patient in two splits, an ID that
            another data set has, or a data set of that name that differs.
    """
    if processes < 1:
        raise UsageError(f"-np {processes} must be at least 1")
    conversion = dataclasses.replace(conversion, dataset_json={"name": name} | conversion.dataset_json)
    conversion = _hold_out(conversion, holdout)
    _check_patients(conversion.cases)
    target = nnunet_folder("nnUNet_raw") / name
    _check_id(name)
    if target.exists() and not overwrite:
        manifest = _unchanged_manifest(target, conversion, processes, skip_bad, quiet)
        if manifest is None:
            raise UsageError(
                f"{target} exists and is incomplete or differs from what would be written; replace it: --overwrite"
            )
        return Outcome(target, False, manifest)
    with _replacing(target) as folder:
        manifest = _write(conversion, folder, processes, skip_bad, quiet)
        _keep_relations(target, folder)
    _refresh_preprocessed_splits(target)
    return Outcome(target, True, manifest)


def _hold_out(conversion: Conversion, names: Sequence[str]) -> Conversion:
    known = {case.name for case in conversion.cases}
    for name in names:
        if name not in known:
            near = ", ".join(difflib.get_close_matches(name, known, 3)) or ", ".join(sorted(known)[:3]) + ", ..."
            raise UsageError(f"--holdout {name}: no such case; near matches: {near}")
    cases = tuple(dataclasses.replace(c, split="test") if c.name in names else c for c in conversion.cases)
    return dataclasses.replace(conversion, cases=cases, options=conversion.options | {"holdout": sorted(set(names))})


def _check_patients(cases: Sequence[Case]) -> None:
    """UsageError if a patient's labelled cases are in two splits: scores on the second would be optimistic."""
    first: dict[str, Case] = {}
    for case in cases:
        if case.has_truth and case.problem is None:
            other = first.setdefault(case.patient, case)
            if other.split != case.split:
                raise UsageError(
                    f"patient {case.patient} would be in two splits: {other.name} ({other.split}) and {case.name}"
                    f" ({case.split}); hold out all cases of a patient or none (--holdout), or correct the lists"
                )


def _check_id(name: str) -> None:
    prefix = name.split("_")[0] + "_"
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        folder = Path(os.environ.get(variable) or os.devnull)
        others = [f.name for f in folder.glob(f"{prefix}*") if f.name != name] if folder.is_dir() else []
        if others:
            raise UsageError(
                f"ID {int(prefix[7:10])} belongs to {others[0]} in {variable}, and nnU-Net needs it to be unique;"
                f" choose another --id, or --name {others[0].removeprefix(prefix)}"
            )


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A hidden folder that becomes `target` if the block succeeds and disappears if it does not."""
    folder, old = (target.with_name(f".{target.name}.{os.getpid()}.{kind}") for kind in ("new", "old"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        if target.exists():
            target.rename(old)
        try:
            folder.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)


def _write(conversion: Conversion, folder: Path, processes: int, skip_bad: bool, quiet: bool) -> dict[str, Any]:
    work = [(conversion.process, case, folder) for case in conversion.cases]
    results = run_parallel(_convert_case, work, processes, f"converting {conversion.converter}", quiet)
    entries: dict[str, Entry] = {}
    skipped: dict[str, Entry] = {}
    for case, (entry, hashes) in zip(conversion.cases, results, strict=True):
        sources = _named(conversion, case, hashes)
        if isinstance(entry, str):
            skipped[case.name] = {"reason": entry, "sources": sources}
        else:
            entries[case.name] = {"patient": case.patient, "split": case.split, "sources": sources, **entry}
    if skipped and (not skip_bad or not entries):
        listed = "\n".join(f"  {name}: {entry['reason']}" for name, entry in skipped.items())
        fix = "repair them, or convert the rest with --skip-bad" if entries else "check the source folder"
        raise UsageError(f"{len(skipped)} of {len(work)} cases cannot be converted; {fix}:\n{listed}")
    conversion.finish(folder, conversion, entries)
    manifest = {
        "converter": conversion.converter,
        "nnunet_ext": __version__,
        "options": conversion.options,
        "tables": {conversion.relative(table): sha256(table) for table in conversion.tables},
        "cases": entries,
        "skipped": skipped,
    }
    save_json(manifest, folder / MANIFEST)
    return manifest


def _convert_case(process: Any, case: Case, folder: Path) -> tuple[Entry | str, list[str | None]]:
    """What the manifest says about a case, or why it is bad; and the hashes of its files."""
    hashes = _hashes(case)
    try:
        return (case.problem or process(case, folder)), hashes
    except BadCaseError as reason:
        return str(reason), hashes


def _hashes(case: Case) -> list[str | None]:
    return [sha256(file) if file.is_file() else None for file in case.files]


def _named(conversion: Conversion, case: Case, hashes: Sequence[str | None]) -> dict[str, str | None]:
    return {conversion.relative(file): digest for file, digest in zip(case.files, hashes, strict=True)}


def _unchanged_manifest(
    target: Path, conversion: Conversion, processes: int, skip_bad: bool, quiet: bool
) -> dict[str, Any] | None:
    """The manifest of `target` if the conversion would write the same again, else None."""
    if not (target / MANIFEST).is_file():
        return None
    manifest: dict[str, Any] = load_json(target / MANIFEST)
    tables = {conversion.relative(table): sha256(table) for table in conversion.tables}
    known = {**manifest["cases"], **manifest["skipped"]}
    if (
        (manifest["converter"], manifest["options"], manifest["tables"])
        != (conversion.converter, conversion.options, tables)
        or set(known) != {case.name for case in conversion.cases}
        or (manifest["skipped"] and not skip_bad)
        or not all((target / file).is_file() for entry in manifest["cases"].values() for file in entry["files"])
    ):
        return None
    digests = run_parallel(
        _hashes, [(case,) for case in conversion.cases], processes, "comparing with the sources", quiet
    )
    same = all(
        known[case.name]["sources"] == _named(conversion, case, hashes)
        for case, hashes in zip(conversion.cases, digests, strict=True)
    )
    return manifest if same else None


def _keep_relations(target: Path, folder: Path) -> None:
    """Carry what ``nnunet_ext link`` wrote over to the new folder; what a converter says, it says anew."""
    if (target / "dataset.json").is_file():
        content = load_json(folder / "dataset.json")
        old = relations(load_json(target / "dataset.json"))
        merged = {kind: value for kind, value in old.items() if kind not in OF_CONVERTERS} | relations(content)
        if merged:
            save_json(content | {RELATIONS_KEY: merged}, folder / "dataset.json")
        prompts = merged.get("prompts")
        if prompts and (target / prompts).is_file() and not (folder / prompts).exists():
            place(target / prompts, folder / prompts)


def _refresh_preprocessed_splits(target: Path) -> None:
    """Bring the splits that training reads up to date.

    Planning copies the raw folder's splits when the preprocessed folder has none, and stops when the two differ.
    """
    variable: Folder = "nnUNet_preprocessed"
    if os.environ.get(variable) and (target / SPLITS).is_file():
        preprocessed = nnunet_folder(variable) / target.name
        if preprocessed.is_dir():
            save_json(load_json(target / SPLITS), preprocessed / SPLITS)
