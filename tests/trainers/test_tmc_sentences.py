"""Sentences of a batch: looked up, dropped, turned with their images."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_ext.data.prompts import Prompts
from nnunet_ext.data.tokenizer import Tokenizer, build_vocabulary
from nnunet_ext.trainers.tmc_sentences import Sentences, foreground, mirror


def sentences(**options: Any) -> Sentences:
    prompts = Prompts({"a": "A box on the left.", "b": "A box on the right."}, ("c",), **options)
    return Sentences(prompts, Tokenizer(build_vocabulary(prompts.sentences.values()), 32))


def test_the_default_prompt_stands_for_dropped_and_absent_sentences() -> None:
    made = sentences()
    assert made.of(["a", "c"]) == ["A box on the left.", ""]
    assert made.of(["a", "b"], 1.0) == ["", ""]
    torch.manual_seed(0)
    share = np.mean([text == "" for text in made.of(["a"] * 2000, 0.15)])
    assert 0.12 < share < 0.18
    assert made.tokens(["", "A box on the left."]).shape == (2, 32)


def test_an_image_is_mirrored_with_its_sentence() -> None:
    torch.manual_seed(0)
    data = torch.arange(12.0).reshape(1, 1, 3, 4).repeat(50, 1, 1, 1)
    images, targets, texts = mirror(data, data + 1, ["upper left box"] * 50, (0, 1))
    assert torch.equal(targets, images + 1)
    flipped = {(): "upper left box", (0,): "lower left box", (1,): "upper right box", (0, 1): "lower right box"}
    found = set()
    for image, text in zip(images, texts, strict=True):
        axes = next(axes for axes in flipped if torch.equal(image[0], data[0, 0].flip(axes) if axes else data[0, 0]))
        assert text == flipped[axes]
        found.add(axes)
    assert found == set(flipped)


@pytest.mark.parametrize(
    ("target", "labels", "meant", "valid"),
    [
        ([[0, 1, 2]], (False, False), [0, 1, 1], None),
        ([[0, 1, 3]], (False, True), [0, 1, 0], [1, 1, 0]),
        ([[0, 1, 1], [0, 0, 1]], (True, False), [0, 1, 1], None),
        ([[0, 1, 1], [0, 0, 0], [0, 0, 1]], (True, True), [0, 1, 1], [1, 1, 0]),
    ],
)
def test_foreground(target: Any, labels: tuple[bool, bool], meant: Any, valid: Any) -> None:
    manager = SimpleNamespace(has_regions=labels[0], has_ignore_label=labels[1], ignore_label=3)
    found = foreground(torch.tensor(target)[None, :, None], manager)
    assert found[0].flatten().tolist() == meant
    assert (found[1] is None) if valid is None else found[1].flatten().tolist() == valid
