"""Outlines of a label map as SVG paths along the pixel edges."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Point = tuple[int, int]
Line = tuple[Point, Point]


def outline(labels: NDArray[Any]) -> str:
    """SVG path along the pixel edges of `labels` (rows, columns) where neighbouring labels differ.

    Coordinates are (column, row) from 0 at the corner; outside of the array is 0. Every edge is drawn once, in lines as
    long as possible: a traced contour takes a third of the text of its separate edges.
    """
    padded = np.pad(labels.astype(np.int32), 1)
    horizontal = [((start, row), (end, row)) for row, start, end in _runs(padded)]
    vertical = [((row, start), (row, end)) for row, start, end in _runs(padded.T)]
    unused = {"h": _by_end(horizontal), "v": _by_end(vertical)}
    return "".join(
        _trace(line, command, unused)
        for command, lines in (("h", horizontal), ("v", vertical))
        for line in lines
        if line in unused[command].get(line[0], ())
    )


def _runs(padded: NDArray[np.int32]) -> list[tuple[int, int, int]]:
    """Edges between consecutive rows, joined along the columns: (row, first column, column after the last)."""
    edges = np.diff(padded, axis=0)[:, 1:-1] != 0
    changes = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, ends = np.argwhere(changes == 1), np.argwhere(changes == -1)
    return [(row, start, end) for (row, start), (_, end) in zip(starts.tolist(), ends.tolist(), strict=True)]


def _by_end(lines: list[Line]) -> dict[Point, list[Line]]:
    """Both ends of every line -> the lines that end there."""
    found: dict[Point, list[Line]] = {}
    for line in lines:
        for end in line:
            found.setdefault(end, []).append(line)
    return found


def _trace(line: Line, command: str, unused: dict[str, dict[Point, list[Line]]]) -> str:
    """From the start of `line` on, in turn horizontally and vertically, as far as unused lines lead."""
    here = line[0]
    path = [f"M{here[0]} {here[1]}"]
    while True:
        there = line[1] if line[0] == here else line[0]
        for end in line:
            unused[command][end].remove(line)
        path.append(f"{command}{there[0] - here[0] + there[1] - here[1]}")
        here, command = there, "v" if command == "h" else "h"
        following = unused[command].get(here)
        if not following:
            return "".join(path)
        line = following[0]
