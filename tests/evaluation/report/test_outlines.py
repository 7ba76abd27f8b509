from __future__ import annotations

import re
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_ext.evaluation.report.outlines import outline


def edges_of(path):
    """How often every unit edge of an outline is drawn, as (command, column, row) of its first end."""
    found = Counter()
    x = y = 0
    for move, start_x, start_y, command, length in re.findall(r"(M)(\d+) (\d+)|([hv])(-?\d+)", path):
        if move:
            x, y = int(start_x), int(start_y)
            continue
        step = 1 if int(length) > 0 else -1
        for _ in range(abs(int(length))):
            end_x, end_y = x + step * (command == "h"), y + step * (command == "v")
            found[command, min(x, end_x), min(y, end_y)] += 1
            x, y = end_x, end_y
    return found


def test_one_pixel():
    labels = np.zeros((3, 4), np.uint8)
    labels[1, 2] = 1
    assert outline(labels) == "M2 1h1v1h-1v-1"
    assert outline(np.zeros((3, 4))) == ""


def test_two_labels_share_an_edge():
    # The box of both is one contour; the edge between them is drawn once.
    assert outline(np.array([[1, 2]])) == "M0 0h2v1h-2v-1M1 0v1"


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_separates_exactly_what_differs(seed, num_labels):
    labels = np.random.default_rng(seed).integers(0, num_labels, (5, 6))
    padded = np.pad(labels, 1)
    expected = {("h", c, r) for r in range(6) for c in range(6) if padded[r, c + 1] != padded[r + 1, c + 1]}
    expected |= {("v", c, r) for r in range(5) for c in range(7) if padded[r + 1, c] != padded[r + 1, c + 1]}
    assert edges_of(outline(labels)) == dict.fromkeys(expected, 1)


def test_contours_are_short():
    rows, columns = np.mgrid[:101, :101]
    disc = np.hypot(rows - 50, columns - 50) < 45
    path = outline(disc)
    assert path.count("M") <= 2
    assert len(path) < 1500
