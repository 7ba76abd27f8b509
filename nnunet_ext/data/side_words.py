"""Words that speak of sides: what a sentence must say of an image that is mirrored."""

from __future__ import annotations

import re

VERTICAL = {"upper": "lower", "top": "bottom"}
HORIZONTAL = {"left": "right"}
OPPOSITES: tuple[dict[str, str], ...] = tuple(
    {**pairs, **{second: first for first, second in pairs.items()}} for pairs in (VERTICAL, HORIZONTAL)
)
"""Of each image axis, rows and columns: word -> the word that takes its place when that axis is mirrored."""
SIDE_WORDS = tuple(sorted({word for words in OPPOSITES for word in words}))
# Letters and digits make a word; an underscore parts two, as it does for the tokenizer.
_WORDS = tuple(re.compile(rf"(?<![^\W_])(?:{'|'.join(words)})(?![^\W_])", re.IGNORECASE) for words in OPPOSITES)


def flip_words(sentence: str, axis: int) -> str:
    """What `sentence` becomes where its image, (..., rows, columns), is mirrored along `axis`.

    Rows (0 or -2) swap upper and lower, top and bottom; columns (1 or -1) swap left and right. Only whole words change;
    words in capitals, with one capital or in lower case stay so. Twice is the sentence again.

    Raises:
        ValueError: another axis; sentences speak of 2D images.
    """
    if not -2 <= axis <= 1:
        raise ValueError(f"axis {axis} is none of a 2D image: 0 or -2 (rows), 1 or -1 (columns)")
    opposites = OPPOSITES[axis % 2]
    return _WORDS[axis % 2].sub(lambda match: _swapped(match[0], opposites), sentence)


def _swapped(word: str, opposites: dict[str, str]) -> str:
    other = opposites.get(word.lower(), word)  # no other case of these words: a dotted capital I matches i
    if word.isupper():
        return other.upper()
    return other.capitalize() if word.istitle() else other
