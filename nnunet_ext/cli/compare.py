"""Compare methods case by case: paired tests, effect sizes, intervals, and tables for a paper.

  nnunet_ext compare nnU-Net=RESULTS_A UCI=RESULTS_B
  nnunet_ext compare A=A_seed0 A=A_seed1 B=B_seed0 B=B_seed1 --metrics DSC HD95 -o COMPARISON
  nnunet_ext compare A B --strata cases.csv --by size

A FOLDER holds what nnunet_ext evaluate wrote. The first method is the baseline. A NAME given several times is one
method with several seeds (the values of a case are averaged first) or folds (their cases are pooled). p_holm is
corrected for all tests of one metric within one stratum. Infinite distances (a missed lesion) are ranked by wilcoxon,
but left out by t and permutation. -o writes comparison.csv, summary.csv, comparison.md and comparison.tex.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext.utilities.errors import UsageError

if TYPE_CHECKING:
    from nnunet_ext.evaluation.comparison.pairing import Method

HELP = "paired tests and tables of two or more methods"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folders, tests, strata."""
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="FOLDER or NAME=FOLDER; the baseline first")
    parser.add_argument("--metrics", nargs="+", metavar="METRIC", help="[DSC IoU SEN SPE PPV HD95 ASSD NSD]")
    parser.add_argument("--test", default="wilcoxon", choices=("wilcoxon", "t", "permutation"), help="[%(default)s]")
    parser.add_argument("--all-pairs", action="store_true", help="test every pair, not only against the baseline")
    parser.add_argument("--strata", type=Path, metavar="FILE", help="CSV file with a column case; needs --by")
    parser.add_argument("--by", metavar="COLUMN", help="column of --strata: text, or numbers to cut at quantiles")
    parser.add_argument("--bins", type=int, default=3, help="groups of a numeric column [%(default)s]")
    parser.add_argument("--common-cases", action="store_true", help="leave out cases that some method lacks")
    parser.add_argument("--seed", type=int, default=0, help="of bootstrap and permutations [%(default)s]")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap samples, permutations [%(default)s]")
    parser.add_argument("-o", type=Path, metavar="FOLDER", help="where to write tables [print only]")


def run(args: argparse.Namespace) -> int:
    """Compare, print, write."""
    from nnunet_ext.evaluation.comparison.compare import compare_methods
    from nnunet_ext.evaluation.comparison.pairing import compared_cases
    from nnunet_ext.evaluation.comparison.strata import read_strata
    from nnunet_ext.evaluation.comparison.tables import save_tables, terminal_text
    from nnunet_ext.evaluation.metrics import require_metrics

    if (args.strata is None) != (args.by is None):
        raise UsageError("--strata FILE and --by COLUMN belong together; give both or neither")
    if args.seed < 0:
        raise UsageError(f"--seed is {args.seed}; it must be 0 or larger")
    require_metrics(args.metrics or [])
    methods = load_methods(args.folders)
    strata = None
    if args.strata:
        strata = read_strata(args.strata, args.by, compared_cases(methods, args.common_cases), args.bins)
    comparison = compare_methods(
        methods,
        metrics=args.metrics,
        test=args.test,
        all_pairs=args.all_pairs,
        strata=strata,
        common_cases=args.common_cases,
        resamples=args.resamples,
        seed=args.seed,
    )
    written = save_tables(comparison, args.o) if args.o else []
    if not args.quiet:
        print(terminal_text(comparison))
        files = " and ".join(str(path) for path in written)
        print(f"wrote {files}" if files else "nothing written; -o FOLDER writes CSV, Markdown and LaTeX tables")
    return 0


def load_methods(texts: Sequence[str]) -> list[Method]:
    """Methods in the order of their first folder; ``[NAME=]FOLDER`` each.

    An existing folder is taken as it is, even with a "=" in its path. Without NAME= the folder names the method, and
    no other folder may then have that name.

    Raises:
        UsageError: an empty name, a name that is taken, or a folder that was not evaluated.
    """
    from nnunet_ext.evaluation.comparison.pairing import Method
    from nnunet_ext.evaluation.results import EvaluationResult

    folders: dict[str, list[Path]] = {}
    unnamed = set()
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator or Path(text).is_dir():
            name, path = Path(text).resolve().name, text
            unnamed.add(name)
        if not name or not path:
            raise UsageError(f"{text!r} is not [NAME=]FOLDER: name or folder is empty")
        folders.setdefault(name, []).append(Path(path))
    for name, found in folders.items():
        if name in unnamed and len(found) > 1:
            listed = ", ".join(map(str, found))
            raise UsageError(
                f"several folders are called {name} ({listed}); write NAME=FOLDER, the same NAME for repeats"
            )
    return [Method(name, tuple(map(EvaluationResult.load, found))) for name, found in folders.items()]
