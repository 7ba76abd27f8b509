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
from pathlib import Path

from nnunet_ext.cli.comparison_options import add_comparison_arguments, check_comparison_arguments
from nnunet_ext.utilities.errors import UsageError

HELP = "paired tests and tables of two or more methods"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folders, tests, strata."""
    parser.add_argument("folders", nargs="+", metavar="[NAME=]FOLDER", help="results of evaluate; the baseline first")
    add_comparison_arguments(parser)
    parser.add_argument("--common-cases", action="store_true", help="leave out cases that some method lacks")
    parser.add_argument("--seed", type=int, default=0, help="of bootstrap and permutations [%(default)s]")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap samples, permutations [%(default)s]")
    parser.add_argument("-o", type=Path, metavar="FOLDER", help="where to write tables [print only]")


def run(args: argparse.Namespace) -> int:
    """Compare, print, write."""
    from nnunet_ext.evaluation.comparison.compare import compare_methods
    from nnunet_ext.evaluation.comparison.pairing import Method, compared_cases, named_folders
    from nnunet_ext.evaluation.comparison.strata import read_strata
    from nnunet_ext.evaluation.comparison.tables import save_tables, terminal_text
    from nnunet_ext.evaluation.results import EvaluationResult

    check_comparison_arguments(args)
    if args.seed < 0:
        raise UsageError(f"--seed is {args.seed}; it must be 0 or larger")
    named = named_folders(args.folders)
    methods = [Method(name, tuple(map(EvaluationResult.load, found))) for name, found in named.items()]
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
