"""Tables of a `Comparison`, as papers print them: terminal, Markdown, LaTeX, and tidy CSV.

Rows are methods, columns metrics, cells "mean ± std" of the finite values; what a mean leaves out stands below.
"""

from __future__ import annotations

import csv
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nnunet_ext.evaluation.comparison.compare import ALPHA, Comparison, PairedTest, metric_label
from nnunet_ext.evaluation.comparison.statistics import EFFECTS, TESTS
from nnunet_ext.evaluation.metrics import METRICS
from nnunet_ext.evaluation.surface import SURFACE_DEFINITIONS
from nnunet_ext.utilities.files import atomic_path

ARROWS = {"high": "↑", "low": "↓", "zero": "↓"}
"""Direction of better values; of "zero" metrics absolute values are shown, so lower is better."""
TEST_HEADER = (
    "metric", "class", "methods", "n", "difference", "95 % interval", "effect", "p", "p_holm", "favours",
)  # fmt: skip
MARKDOWN_SPECIAL = str.maketrans({char: f"\\{char}" for char in "\\|*_<>`["})
LATEX_SPECIAL = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "†": r"$^{\dagger}$",
        "*": r"$^{*}$",
        "–": "--",
    }
)


@dataclass(frozen=True)
class Cell:
    """One cell of a table of methods.

    Attributes:
        text: "mean ± std", "inf" if every value is infinite, a dash if every one is undefined.
        best: whether no method has a better rank, unless all are equal (`Comparison.places`).
        second: whether it is the second best of more than two methods.
        marks: "*" if significantly different from the baseline, "†" if the mean leaves infinite values out.
    """

    text: str
    best: bool
    second: bool
    marks: str


def table_cell(
    comparison: Comparison, stratum: str, class_name: str, metric: str, method: str, *, short: bool = False
) -> Cell:
    """The cell of a method and a metric; `short` with one decimal less."""
    found = comparison.summaries[stratum, class_name, metric, method]
    decimals = _decimals(metric) - short
    text = f"{found['mean']:.{decimals}f} ± " + ("–" if math.isnan(found["std"]) else f"{found['std']:.{decimals}f}")
    if not found["n"]:
        text = "inf" if found["infinite"] else "–"
    place = comparison.places(stratum, class_name, metric)[method]
    baseline = (stratum, class_name, metric, comparison.methods[0], method)
    significant = any(
        one.p_holm < ALPHA and (one.stratum, one.class_name, one.metric, one.first, one.second) == baseline
        for one in comparison.tests
    )
    marks = "*" * significant + "†" * bool(found["infinite"] and found["n"])
    return Cell(text, place == 1, place == 2, marks)


def metric_header(metric: str) -> str:
    """Name, direction of better values, unit: "HD95 ↓ (mm)"."""
    unit = METRICS[metric].unit
    return f"{metric_label(metric)} {ARROWS[METRICS[metric].best]}" + (f" ({unit})" if unit else "")


def stratum_title(comparison: Comparison, stratum: str) -> str:
    """The stratum and its number of cases."""
    return f"{stratum or 'all cases'} (n = {comparison.size(stratum)})"


def left_out(comparison: Comparison, stratum: str, class_name: str) -> list[str]:
    """ "infinite: HD95, ASSD: A 3, B 1" and the same of undefined: how many values the means of a block leave out."""
    lines = []
    for kind in ("infinite", "undefined"):
        metrics_of: dict[str, list[str]] = {}
        for metric in comparison.metrics:
            counts = {
                method: comparison.summaries[stratum, class_name, metric, method][kind] for method in comparison.methods
            }
            if any(counts.values()):
                text = ", ".join(f"{method} {count:.0f}" for method, count in counts.items())
                metrics_of.setdefault(text, []).append(metric_label(metric))
        listed = "; ".join(f"{', '.join(metrics)}: {counts}" for counts, metrics in metrics_of.items())
        lines += [f"{kind}, left out of the mean: {listed}"] if listed else []
    return lines


def definitions(comparison: Comparison) -> list[str]:
    """Sentences without which a table cannot be understood or repeated."""
    pairs, classes = len({(one.first, one.second) for one in comparison.tests}), len(comparison.classes)
    sentences = [
        f"{len(comparison.cases)} cases; mean ± standard deviation (n - 1) over cases, of the finite values",
        "best and second best are those with the fewest infinite values, then the best mean; none where all are equal;"
        " † the mean leaves out infinite values (one mask is empty)",
        f"* p_holm < {ALPHA} against the baseline {comparison.methods[0]}, in either direction",
        f"test: {TESTS[comparison.test]}, two-sided, paired by case; p_holm is corrected by Holm for all tests of one"
        f" metric within one stratum (pairs x classes = {pairs} x {classes} = {pairs * classes}), not across metrics or"
        " strata",
        "difference: second minus first method (positive: the second has larger values), of the finite pairs, with"
        f" its 95 % bootstrap interval ({comparison.resamples} resamples, seed {comparison.seed})",
        f"effect: {EFFECTS[comparison.test]}; favours: the method that it points to, significant or not",
        f"surface definition {comparison.surface_definition}: {SURFACE_DEFINITIONS[comparison.surface_definition]};"
        f" NSD tolerance {comparison.tolerance_mm:g} mm",
    ]
    if absolute := [metric for metric in comparison.metrics if METRICS[metric].best == "zero"]:
        sentences.append(f"absolute values of {', '.join(absolute)} are averaged and tested, since zero is best")
    return sentences


def result_row(one: PairedTest) -> list[str]:
    """A test in the order of `TEST_HEADER`."""
    difference, low, high = (
        "–" if math.isnan(value) else f"{value:+.{_decimals(one.metric)}f}"
        for value in (one.mean_difference, one.low, one.high)
    )
    return [
        metric_label(one.metric),
        one.class_name,
        f"{one.second} - {one.first}",
        str(one.n),
        difference,
        f"[{low}, {high}]",
        "–" if math.isnan(one.effect) else f"{one.effect:+.2f}",
        spell_p(one.p),
        spell_p(one.p_holm) + " *" * (one.p_holm < ALPHA),
        one.better or "–",
    ]


def spell_p(p: float) -> str:
    """4 decimals, ``<0.0001``, and a dash for what was not tested."""
    if math.isnan(p):
        return "–"
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def terminal_text(comparison: Comparison) -> str:
    """Tables (3 decimals, millimetres 1), tests, definitions and notes for a terminal; "•" marks the best."""
    lines: list[str] = []
    for stratum in comparison.strata:
        for class_name in comparison.classes:
            columns = [["", *comparison.methods]]
            for metric in comparison.metrics:
                cells = [table_cell(comparison, stratum, class_name, metric, m, short=True) for m in comparison.methods]
                columns.append([metric_header(metric), *_terminal_column(cells)])
            rows = [*zip(*columns, strict=True)]
            lines += ["", f"{stratum_title(comparison, stratum)}: {class_name}", *_aligned(rows)]
            lines += [f"  {line}" for line in left_out(comparison, stratum, class_name)]
    for stratum in comparison.strata:
        tests = [result_row(one) for one in comparison.tests if one.stratum == stratum]
        if tests:
            lines += ["", f"tests, {stratum_title(comparison, stratum)}", *_aligned([TEST_HEADER, *tests])]
    sentences = ["• best", *definitions(comparison), *(f"note: {note}" for note in comparison.notes)]
    lines += ["", *(textwrap.fill(sentence, 120, subsequent_indent="  ") for sentence in sentences)]
    return "\n".join(lines[1:])


def markdown_text(comparison: Comparison) -> str:
    """The same as Markdown: best bold, second best of more than two methods underlined."""
    lines = [f"# Comparison of {', '.join(map(_markdown, comparison.methods))}"]
    for stratum in comparison.strata:
        lines += ["", f"## {_markdown(stratum_title(comparison, stratum))}"]
        for class_name in comparison.classes:
            rows = []
            for method in comparison.methods:
                cells = [table_cell(comparison, stratum, class_name, m, method) for m in comparison.metrics]
                rows.append([_markdown(method), *map(_markdown_cell, cells)])
            header = [_markdown(text) for text in (class_name, *map(metric_header, comparison.metrics))]
            lines += ["", *_markdown_table(header, rows), ""]
            lines += [f"- {_markdown(line)}" for line in left_out(comparison, stratum, class_name)]
        rows = [[*map(_markdown, result_row(one))] for one in comparison.tests if one.stratum == stratum]
        lines += ["", *_markdown_table(map(_markdown, TEST_HEADER), rows)] if rows else []
    lines += ["", "## Definitions", "", *(f"- {_markdown(sentence)}" for sentence in definitions(comparison))]
    lines += ["", "## Notes", "", *(f"- {_markdown(note)}" for note in comparison.notes)] if comparison.notes else []
    return "\n".join(lines) + "\n"


def latex_text(comparison: Comparison) -> str:
    """One ``table`` per stratum with a block per class (package booktabs); names are escaped, notes are comments."""
    columns = len(comparison.metrics) + 1
    lines = [r"% \usepackage{booktabs}", *(f"% note: {note}" for note in comparison.notes)]
    for number, stratum in enumerate(comparison.strata):
        counts, blocks = [], []
        for class_name in comparison.classes:
            blocks += [r"\midrule", rf"\multicolumn{{{columns}}}{{l}}{{\textit{{{_latex(class_name)}}}}} \\"]
            for method in comparison.methods:
                cells = [table_cell(comparison, stratum, class_name, m, method) for m in comparison.metrics]
                blocks.append(" & ".join([_latex(method), *map(_latex_cell, cells)]) + r" \\")
            counts += [f"{class_name}: {line}" for line in left_out(comparison, stratum, class_name)]
        caption = [f"Comparison, {stratum_title(comparison, stratum)}", *definitions(comparison), *counts]
        header = " & ".join(["", *(_latex(metric_header(metric)) for metric in comparison.metrics)])
        lines += [
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{'. '.join(map(_latex, caption))}.}}",
            rf"\label{{tab:comparison-{number}}}",
            rf"\begin{{tabular}}{{l{'c' * len(comparison.metrics)}}}",
            r"\toprule",
            rf"{header} \\",
            *blocks,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    return "\n".join(lines) + "\n"


def save_tables(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``comparison.csv`` (a row per test), ``summary.csv``, ``comparison.md``, ``comparison.tex``; return them.

    Each file is whole or absent. In the CSV files nothing is rounded; the stratum of all cases has an empty name.
    """
    shared = {
        "test": comparison.test,
        "effect_size": EFFECTS[comparison.test],
        "resamples": comparison.resamples,
        "seed": comparison.seed,
        "surface_definition": comparison.surface_definition,
        "nsd_tolerance_mm": comparison.tolerance_mm,
    }
    tests = [asdict(one) | {"favours": one.better} | shared for one in comparison.tests]
    keys = ("stratum", "class_name", "metric", "method")
    summaries = [dict(zip(keys, key, strict=True)) | found for key, found in comparison.summaries.items()]
    paths = [folder / name for name in ("comparison.csv", "summary.csv", "comparison.md", "comparison.tex")]
    _write_csv(tests, [field.name for field in fields(PairedTest)] + ["favours", *shared], paths[0])
    _write_csv(summaries, [*summaries[0]], paths[1])
    for path, text in zip(paths[2:], (markdown_text(comparison), latex_text(comparison)), strict=True):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def _write_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str], path: Path) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def _decimals(metric: str) -> int:
    """4 for a share, 2 for millimetres and millilitres, as `results.spell`."""
    return 2 if METRICS[metric].unit else 4


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text with columns of equal width, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if i else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _terminal_column(cells: Sequence[Cell]) -> list[str]:
    """The cells with their marks one below the other."""
    marks = [("•" if cell.best else " ") + cell.marks for cell in cells]
    width = max(map(len, marks))
    return [cell.text.replace(" ", "") + mark.ljust(width) for cell, mark in zip(cells, marks, strict=True)]


def _markdown(text: str) -> str:
    return text.translate(MARKDOWN_SPECIAL)


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else f"<u>{cell.text}</u>" if cell.second else cell.text
    return text + _markdown(cell.marks)


def _markdown_table(header: Iterable[str], rows: Sequence[Sequence[str]]) -> list[str]:
    header = [*header]
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def _latex(text: str) -> str:
    return text.translate(LATEX_SPECIAL)


def _latex_cell(cell: Cell) -> str:
    text = _latex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else rf"\underline{{{text}}}" if cell.second else text
    return text + _latex(cell.marks)
