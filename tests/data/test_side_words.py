import os
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ext.data.side_words import OPPOSITES, SIDE_WORDS, flip_words

COVID = "Bilateral pulmonary infection, two infected areas, upper left lung and middle lower left lung."
WORDS = [cased(word) for word in SIDE_WORDS for cased in (str.lower, str.upper, str.capitalize)]


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        (0, "Bilateral pulmonary infection, two infected areas, lower left lung and middle upper left lung."),
        (1, "Bilateral pulmonary infection, two infected areas, upper right lung and middle lower right lung."),
    ],
)
def test_a_template_of_lvit(axis, expected):
    assert flip_words(COVID, axis) == flip_words(COVID, axis - 2) == expected


def test_case_and_word_boundaries():
    assert flip_words("Left, LEFT; left-sided (right) left_lung", 1) == "Right, RIGHT; right-sided (left) right_lung"
    assert flip_words("leftover, bright, uppermost, 2left, stop", 1) == "leftover, bright, uppermost, 2left, stop"
    assert flip_words("Top and BOTTOM; stop; toplower", 0) == "Bottom and TOP; stop; toplower"
    assert flip_words("rİght lEFT", 1) == "rİght right"


def test_each_axis_has_its_words():
    assert flip_words("upper top", 1) == "upper top" and flip_words("left right", 0) == "left right"
    assert flip_words("", 0) == ""
    for axis in (2, -3):
        with pytest.raises(ValueError, match=f"axis {axis} is none of a 2D image"):
            flip_words("left", axis)


@given(st.lists(st.sampled_from([*WORDS, "lung", "leftover", "Éleft"]) | st.text(max_size=4)), st.integers(-2, 1))
def test_twice_is_the_sentence_again(words, axis):
    sentence = " ".join(words)
    once = flip_words(sentence, axis)
    assert flip_words(once, axis).lower() == sentence.lower()  # "lEFT" comes back as "left"


@given(st.lists(st.sampled_from([*WORDS, "lung", "leftover"])), st.integers(-2, 1))
def test_case_comes_back_too(words, axis):
    sentence = " ".join(words)
    once = flip_words(sentence, axis)
    assert flip_words(once, axis) == sentence
    assert (once != sentence) == any(word.lower() in OPPOSITES[axis % 2] for word in words)


@pytest.fixture
def monuseg_text():
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("NNUNET_EXT_TEST_DATA") or beside) / "monuseg_text"
    if not folder.is_dir():
        pytest.skip("no real samples")
    return folder


@pytest.mark.real_data
def test_real_sentences(monuseg_text):
    sentences = set()
    for file in monuseg_text.glob("*/*_text.xlsx"):
        rows = openpyxl.load_workbook(file).worksheets[0].iter_rows(min_row=2, values_only=True)
        sentences.update(sentence for _, sentence in rows)
    assert len(sentences) > 9
    for sentence in sentences:
        both = flip_words(flip_words(sentence, 0), 1)
        assert both == flip_words(flip_words(sentence, 1), 0) and flip_words(flip_words(both, 0), 1) == sentence
        assert (both == sentence) == (not {"left", "right", "upper", "lower"}.intersection(sentence[:-1].split()))
    upper_right = "The nuclei density in the upper right is high."
    assert upper_right in sentences
    assert flip_words(upper_right, 0) == "The nuclei density in the lower right is high."
    assert flip_words(upper_right, 1) == "The nuclei density in the upper left is high."
