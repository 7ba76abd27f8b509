import dataclasses
import json
from typing import Any

import pytest

from nnunet_ext.settings.tmc import TMCSettings
from nnunet_ext.utilities.errors import UsageError


def test_settings_are_documented_and_survive_json() -> None:
    settings = TMCSettings()
    assert all(field.metadata["help"] for field in dataclasses.fields(settings))
    assert TMCSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert settings.changed() == {}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"swin_depths": [2, 2, 6]}, r"swin_depths=\[2, 2, 6\] must have 4 elements"),
        ({"bert_split": [12]}, r"bert_split=\[12\] must have 4 elements"),
        ({"swin_heads": [5, 6, 12, 24]}, r"swin_heads=\[5, 6, 12, 24\]: 5 heads do not divide the 96 channels"),
        ({"bert_heads": 7}, "bert_heads=7 does not divide bert_width=768"),
        ({"cnn_width": 12}, "cnn_width=12 is not a multiple of 8"),
        ({"bert_frozen_layers": 13}, r"bert_frozen_layers=13: there are only 12 layers \(bert_split=\[3, 3, 3, 3\]\)"),
        ({"token_length": 24}, r"token_length=24 is outside the range \[32, 512\]"),
        ({"vocabulary": ["[CLS]", "left"]}, r"vocabulary starts with \['\[CLS\]'\], not with \[PAD\]"),
        ({"vocabulary": []}, r"vocabulary starts with \[\], not with \[PAD\]"),
        ({"prompt_dropout": 1.5}, r"prompt_dropout=1.5 is outside the range \[0, 1\]"),
        ({"align_mode": "clip"}, "align_mode='clip' is not one of pixel, siglip, literal, none"),
        ({"initial_temperature": 0.001}, r"initial_temperature=0.001 is outside the range \[0.01, 100\]"),
        ({"no_cross_attention": True, "align_mode": "none"}, "leave nothing for the text to do; say no_text=true"),
        ({"mirror_axes": [1]}, r"mirror_axes=\[1\] would make sentences about sides wrong; set flip_words=true"),
        ({"mirror_axes": None}, "mirror_axes=None would make sentences about sides wrong"),
        ({"mirror_axes": [2], "flip_words": True}, r"mirror_axes=\[2\] is outside the range \[0, 1\]"),
    ],
)
def test_settings_that_cannot_be(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TMCSettings.from_dict(overrides)


def test_mirroring_where_sentences_bear_it() -> None:
    assert TMCSettings().mirror_axes == ()
    assert TMCSettings(mirror_axes=(1,), flip_words=True).mirror_axes == (1,)
    assert TMCSettings(mirror_axes=None, no_text=True).mirror_axes is None


@pytest.mark.parametrize(
    ("weights", "layers", "expected"),
    [(None, None, None), ("bert", None, 0), (None, 0, 0), ("bert", 3, 3), (None, 3, 3)],
)
def test_what_is_frozen(weights: str | None, layers: int | None, expected: int | None) -> None:
    assert TMCSettings(bert_weights=weights, bert_frozen_layers=layers).frozen_layers == expected


def test_no_text_switches_the_alignment_off() -> None:
    assert TMCSettings().alignment == "pixel" and TMCSettings(no_text=True).alignment == "none"
    assert TMCSettings(no_text=True, no_cross_attention=True, align_mode="none").alignment == "none"


def test_paper_is_the_text() -> None:
    literal = {"align_mode": "literal", "optimizer": "adam", "pretrained_lr": 3e-4, "prompt_dropout": 0.0}
    assert TMCSettings.literal() == literal and TMCSettings.paper().initial_lr == 3e-4


def test_replace_checks() -> None:
    assert TMCSettings().replace(cnn_width=16).cnn_width == 16
    with pytest.raises(UsageError, match="cnn_width=9"):
        TMCSettings().replace(cnn_width=9)
