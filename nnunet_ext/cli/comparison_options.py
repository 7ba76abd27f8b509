"""Options of a comparison that more than one command has."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.utilities.errors import UsageError


def add_comparison_arguments(parser: argparse._ActionsContainer) -> None:
    """Metrics, test, pairs and strata."""
    parser.add_argument("--metrics", nargs="+", metavar="METRIC", help="[DSC IoU SEN SPE PPV HD95 ASSD NSD]")
    parser.add_argument("--test", default="wilcoxon", choices=("wilcoxon", "t", "permutation"), help="[%(default)s]")
    parser.add_argument("--all-pairs", action="store_true", help="test every pair, not only against the baseline")
    parser.add_argument("--strata", type=Path, metavar="FILE", help="CSV file with a column case; needs --by")
    parser.add_argument("--by", metavar="COLUMN", help="column of --strata: text, or numbers to cut at quantiles")
    parser.add_argument("--bins", type=int, default=3, help="groups of a numeric column [%(default)s]")


def check_comparison_arguments(args: argparse.Namespace) -> None:
    """Refuse an unknown metric, and half of ``--strata FILE --by COLUMN``.

    Raises:
        UsageError: one of these.
    """
    from nnunet_ext.evaluation.metrics import require_metrics

    if (args.strata is None) != (args.by is None):
        raise UsageError("--strata FILE and --by COLUMN belong together; give both or neither")
    require_metrics(args.metrics or [])
