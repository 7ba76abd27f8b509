"""The sentences of a data set: read, matched to its cases, and told apart from those of another run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from nnunet_ext.data.prompt_tables import Rows, read_rows
from nnunet_ext.data.tokenizer import END, START, Tokenizer
from nnunet_ext.utilities.datasets import dataset_id, dataset_name, relations, write_relation
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json, save_json

PROMPTS_FILE = "prompts.json"
RELATION = "prompts"
_ENDINGS = re.compile(r"\.(?:nii\.gz|nii|png|jpe?g|tiff?|bmp|nrrd|mha|npz|npy|b2nd)$", re.IGNORECASE)
_CHANNEL = "_0000"
_MASK = "mask_"
_LISTED_AT_MOST = 5


@dataclass(frozen=True)
class Prompts:
    """The sentences of some cases.

    Attributes:
        sentences: case -> its sentence, with single spaces; cases without one are not in it.
        missing: cases without a sentence, sorted.
        default: the sentence of these.
    """

    sentences: Mapping[str, str]
    missing: tuple[str, ...]
    default: str = ""

    def sentence(self, case: str) -> str:
        """That of `case`, or the default one."""
        return self.sentences.get(case, self.default)

    @property
    def sha256(self) -> str:
        """Hex digest of the sentences and the cases they belong to; it depends neither on the file nor on its order."""
        return hashlib.sha256(json.dumps(dict(self.sentences), sort_keys=True).encode()).hexdigest()

    def encode(self, tokenizer: Tokenizer) -> dict[str, torch.Tensor]:
        """Case -> (T,) token ids, of every case; cases of one sentence share a tensor.

        Raises:
            UsageError: sentences have more tokens than `tokenizer` takes; how many, and the longest.
        """
        distinct = {*self.sentences.values(), self.default}
        counts = {sentence: len(tokenizer.tokens(sentence)) for sentence in sorted(distinct)}
        if too_long := [case for case, text in self.sentences.items() if counts[text] > tokenizer.length]:
            longest = max(too_long, key=lambda case: counts[self.sentences[case]])
            most = counts[self.sentences[longest]]
            raise UsageError(
                f"{len(too_long)} of {len(self.sentences)} sentences have more than token_length={tokenizer.length}"
                f" tokens, {START} and {END} included; the longest, {longest}, has {most}: shorten them, or set"
                f" token_length={most}"
            )
        rows = {sentence: tokenizer.encode(sentence) for sentence in counts}
        return {case: rows[self.sentence(case)] for case in (*self.sentences, *self.missing)}


def read_prompts(file: str | Path, cases: Iterable[str], default: str = "") -> Prompts:
    """The sentences of `cases` in a file that `prompt_tables.read_rows` reads.

    A name stands for the case of that name; else for the case that is left of it without file ending, ``_0000`` and a
    leading ``mask_``.

    Raises:
        UsageError: names that are no case, two names of one case, a sentence without text, or an unusable file.
    """
    return match_prompts(read_rows(Path(file)), cases, str(file), default)


def match_prompts(rows: Rows, cases: Iterable[str], file: str, default: str = "") -> Prompts:
    """As `read_prompts`, of rows that have been read from `file`."""
    known = set(cases)
    matched = [(name, _matching_case(name, known), normalised(sentence)) for name, sentence in rows]
    if unknown := sorted({name for name, case, _ in matched if case is None}):
        raise UsageError(
            f"{file}: {len(unknown)} of {len(matched)} names are none of the {len(known)} cases: {listed(unknown)}"
            f" (cases: {listed(sorted(known))}); correct or remove them"
        )
    if empty := sorted(name for name, _, sentence in matched if not sentence):
        raise UsageError(
            f"{file}: {len(empty)} names have no text: {listed(empty)}; remove them, and these cases get the default"
            " prompt"
        )
    sentences: dict[str, str] = {}
    names: dict[str, list[str]] = {}
    for name, case, sentence in matched:
        assert case is not None
        sentences[case] = sentence
        names.setdefault(case, []).append(name)
    if twice := [f"{case} ({', '.join(named)})" for case, named in sorted(names.items()) if len(named) > 1]:
        raise UsageError(f"{file}: {len(twice)} cases are named more than once: {listed(twice)}; keep one of each")
    return Prompts(
        dict(sorted(sentences.items())), tuple(sorted(known.difference(sentences))), default=normalised(default)
    )


def normalised(sentence: str) -> str:
    """`sentence` in Unicode's composed form, with single spaces between words and none around."""
    return " ".join(unicodedata.normalize("NFC", sentence).split())


def prompts_file(name_or_id: str | int) -> Path:
    """The file that the relation ``prompts`` of a data set names, below its raw or else its preprocessed folder.

    Raises:
        UsageError: there is no such relation, or no such file.
    """
    name = dataset_name(name_or_id)
    folders = _folders(name)
    files = [
        folder / str(relation)
        for folder in folders
        if (relation := relations(load_json(folder / "dataset.json")).get(RELATION)) is not None
    ]
    if not files:
        raise UsageError(f"{name} has no prompts; run: nnunet_ext link {dataset_id(name)} --prompts FILE")
    for file in files:
        if file.is_file():
            return file
    raise UsageError(
        f"{' and '.join(map(str, files))}: no such file, but dataset.json of {name} names it; bring it back, or run:"
        f" nnunet_ext link {dataset_id(name)} --prompts FILE"
    )


def link_prompts(name_or_id: str | int, prompts: Prompts) -> list[Path]:
    """Write ``prompts.json`` into the raw and the preprocessed folder of a data set, then the relation to it.

    Returns: the files of sentences written.

    Raises:
        UsageError: the data set has neither.
    """
    name = dataset_name(name_or_id)
    files = [folder / PROMPTS_FILE for folder in _folders(name)]
    for file in files:
        save_json(dict(prompts.sentences), file)
    write_relation(name, RELATION, PROMPTS_FILE)
    return files


def _folders(name: str) -> list[Path]:
    """The raw and the preprocessed folder of a data set, where they hold a dataset.json."""
    roots = [os.environ.get(variable) for variable in ("nnUNet_raw", "nnUNet_preprocessed")]
    return [Path(root) / name for root in roots if root and (Path(root) / name / "dataset.json").is_file()]


def _matching_case(name: str, cases: Collection[str]) -> str | None:
    return next((candidate for candidate in _candidates(name) if candidate in cases), None)


def _candidates(name: str) -> Iterator[str]:
    """`name` itself, then with less and less around it: cases may be called ``mask_1`` or ``a.png``."""
    yield name
    stem = _ENDINGS.sub("", name)
    yield stem
    yield stem.removesuffix(_CHANNEL)
    yield stem.removeprefix(_MASK)
    yield stem.removesuffix(_CHANNEL).removeprefix(_MASK)


def listed(names: Sequence[str]) -> str:
    """The first few of `names`, and how many more there are."""
    more = len(names) - _LISTED_AT_MOST
    return (", ".join(names[:_LISTED_AT_MOST]) or "none") + (f" and {more} more" if more > 0 else "")
