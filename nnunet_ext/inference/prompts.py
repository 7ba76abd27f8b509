"""The sentence that each image is predicted with, by a model of `TMCTrainer`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from nnunet_ext.data.prompts import Prompts, listed, normalised, read_prompts
from nnunet_ext.data.tokenizer import Tokenizer
from nnunet_ext.settings.tmc import TMCSettings
from nnunet_ext.utilities.errors import UsageError


def encoded_prompts(
    trainer_name: str, plans: dict[str, Any], cases: Sequence[str], file: str | None, sentence: str | None
) -> tuple[dict[str, Tensor], str]:
    """The token ids of every case, each (1, T), and a line for the user.

    Args:
        trainer_name, plans: of the model.
        cases: their names.
        file: of sentences by case, as for training (``--prompts``).
        sentence: of all cases (``--prompt``), where there is no `file`.

    Raises:
        UsageError: a model without text, or sentences that are unusable.
    """
    option = "--prompt" if file is None else f"--prompts {file}"
    settings = TMCSettings.from_plans(plans)
    if trainer_name != TMCSettings.trainer or settings.no_text or settings.vocabulary is None:
        why = "was trained with no_text=true" if trainer_name == TMCSettings.trainer else f"is of {trainer_name}"
        raise UsageError(f"{option}: only a model of {TMCSettings.trainer} reads sentences, and this one {why}")
    if file is None:
        prompts = Prompts(dict.fromkeys(cases, normalised(sentence or "")), ())
    else:
        prompts = read_prompts(file, cases, settings.default_prompt)
    tokenizer = Tokenizer(settings.vocabulary, settings.token_length)
    rows = {case: row[None] for case, row in prompts.encode(tokenizer).items()}
    return rows, _summary(prompts, tokenizer)


def _summary(prompts: Prompts, tokenizer: Tokenizer) -> str:
    lines = [f"{len(prompts.sentences)} cases with a sentence"]
    if prompts.missing:
        lines.append(f"{len(prompts.missing)} without, which get the default prompt: {listed(prompts.missing)}")
    if unknown := tokenizer.unknown_words(prompts.sentences.values()):
        lines.append(f"words that the model does not know: {listed(unknown)}")
    return "; ".join(lines)


@contextmanager
def selected_prompt(network: Any, rows: Mapping[str, Tensor], case: str) -> Iterator[None]:
    """Inside, `network` reads the sentence of `case`, if `rows` has one; a network without text reads none."""
    if case not in rows:
        yield
        return
    network.select_prompts(rows[case])
    try:
        yield
    finally:
        network.select_prompts(None)
