"""What `TMCTrainer` does with the sentences of a batch: look them up, drop some, turn them with their images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nnunet_ext.data.prompts import Prompts
from nnunet_ext.data.side_words import flip_words
from nnunet_ext.data.tokenizer import Tokenizer


class Sentences:
    """The sentences of a data set as rows of token ids; each is encoded once.

    Raises:
        UsageError: sentences have more tokens than `tokenizer` takes.
    """

    def __init__(self, prompts: Prompts, tokenizer: Tokenizer) -> None:
        self.prompts, self.tokenizer = prompts, tokenizer
        self._rows = {prompts.sentence(case): row for case, row in prompts.encode(tokenizer).items()}

    def of(self, cases: Sequence[str], dropout: float = 0.0) -> list[str]:
        """One for each of `cases`: its own or, with probability `dropout` and where it has none, the default prompt."""
        kept = (torch.rand(len(cases)) >= dropout).tolist() if dropout else [True] * len(cases)
        prompts = self.prompts
        return [prompts.sentence(case) if keep else prompts.default for case, keep in zip(cases, kept, strict=True)]

    def tokens(self, sentences: Sequence[str]) -> Tensor:
        """(len(sentences), T) int64."""
        for sentence in sentences:
            if sentence not in self._rows:
                self._rows[sentence] = self.tokenizer.encode(sentence)
        return torch.stack([self._rows[sentence] for sentence in sentences])


def mirror(
    data: Tensor, target: Tensor, sentences: Sequence[str], axes: Sequence[int]
) -> tuple[Tensor, Tensor, list[str]]:
    """Turn each image of a batch around along each of `axes` with probability 1/2, and its sentence with it.

    data, target: (B, C, H, W) on one device. sentences: B. axes: 0 rows, 1 columns.
    """
    turned = list(sentences)
    for axis in axes:
        chosen = torch.rand(len(data)) < 0.5
        where = chosen.to(data.device, non_blocking=True).view(-1, 1, 1, 1)
        data = torch.where(where, data.flip(axis + 2), data)
        target = torch.where(where, target.flip(axis + 2), target)
        turned = [flip_words(text, axis) if turn else text for text, turn in zip(turned, chosen.tolist(), strict=True)]
    return data, target, turned


def foreground(target: Tensor, labels: Any) -> tuple[Tensor, Tensor | None]:
    """What a sentence is about, as far as a data set of one sentence per image can tell: any foreground.

    Args:
        target: (B, 1, H, W) labels, or (B, regions, H, W), then with a further channel for what is to be ignored.
        labels: nnU-Net's label manager.

    Returns: (B, 1, H, W) in {0, 1}, and the pixels that count, likewise; None: all.
    """
    if labels.has_regions:
        regions = target[:, :-1] if labels.has_ignore_label else target
        valid = 1 - target[:, -1:].float() if labels.has_ignore_label else None
        return regions.amax(1, keepdim=True).float(), valid
    if not labels.has_ignore_label:
        return (target > 0).float(), None
    counts = target != labels.ignore_label
    return ((target > 0) & counts).float(), counts.float()
