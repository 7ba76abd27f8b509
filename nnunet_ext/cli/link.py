"""``nnunet_ext link``: say which other data sets a target learns from, and prepare them.

A relation is one flag: its data is prepared first, then ``dataset.json`` is written.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunet_ext.data.xray_cache import XrayCache

HELP = "link a data set to others that it learns from, e.g. chest X-rays, and prepare those"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Target and relations."""
    parser.add_argument("target", metavar="TARGET", help="ID or name of the data set to be segmented, e.g. 115")
    parser.add_argument(
        "--xray", nargs="+", metavar="ID", help="data sets of X-rays with image-level labels (UCITrainer)"
    )
    parser.add_argument("--size", type=int, default=256, help="side of the cached X-rays in pixels (default: 256)")
    parser.add_argument("-np", type=int, default=2, metavar="N", help="images to decode at a time (default: 2)")


def run(args: argparse.Namespace) -> int:
    """Prepare what is linked, then write the relation; 0 on success.

    Raises:
        UsageError: the target or a linked data set is missing or unusable; nothing is linked then.
    """
    from nnunet_ext.utilities.errors import UsageError

    if not args.xray:
        raise UsageError("nothing to link; name a relation, e.g.: nnunet_ext link 115 --xray 700")
    _link_xrays(args)
    return 0


def _link_xrays(args: argparse.Namespace) -> None:
    from nnunet_ext.data.xray_cache import open_xray_cache
    from nnunet_ext.data.xray_cache_building import build_xray_cache
    from nnunet_ext.data.xray_dataset import read_xray_dataset, require_same_classes
    from nnunet_ext.utilities.datasets import dataset_id, dataset_name, write_relation
    from nnunet_ext.utilities.errors import UsageError

    if args.size < 16 or args.np < 1:
        raise UsageError(f"--size {args.size} must be at least 16 and -np {args.np} at least 1")
    target = dataset_name(args.target)
    prepared = _require_segmentation_target(target)
    names = list(dict.fromkeys(dataset_name(name) for name in args.xray))
    require_same_classes([read_xray_dataset(name) for name in names])  # before the long work
    for name in names:
        build_xray_cache(name, args.size, args.np, args.quiet)
    caches = [open_xray_cache(name, args.size) for name in names]
    require_same_classes(caches)
    write_relation(target, "xray", [dataset_id(name) for name in names])

    if args.quiet:
        return
    for cache in caches:
        print(_summary(cache))
        _warn(cache)
    print(f"{target} now learns from {', '.join(names)}; next:")
    if not prepared:
        print(f"  nnUNetv2_plan_and_preprocess -d {dataset_id(target)} --verify_dataset_integrity")
    print(f"  nnUNetv2_train {dataset_id(target)} 3d_fullres 0 -tr UCITrainer")


def _require_segmentation_target(target: str) -> bool:
    """UsageError unless `target` is a data set to be segmented; returns whether it is preprocessed."""
    import os
    from pathlib import Path

    from nnunet_ext.data.xray_dataset import is_xray_dataset
    from nnunet_ext.utilities.errors import UsageError
    from nnunet_ext.utilities.files import load_json

    roots = [os.environ.get(variable) for variable in ("nnUNet_raw", "nnUNet_preprocessed")]
    files = [Path(root) / target / "dataset.json" for root in roots if root]
    found = [file for file in files if file.is_file()]
    if not found:
        raise UsageError(
            f"{target} has no dataset.json in nnUNet_raw or nnUNet_preprocessed; convert the data set first"
        )
    if is_xray_dataset(load_json(found[0])):
        raise UsageError(f"{target} holds X-rays with image-level labels; name the data set to be segmented as TARGET")
    return bool(files) and files[-1].is_file()


def _summary(cache: XrayCache) -> str:
    lines = [
        f"{cache.name}: {len(cache)} X-rays, {len(cache.classes)} classes ({cache.task}), cached at {cache.side} x"
        f" {cache.side} pixels: {cache.megabytes:.1f} MB in {cache.folder}"
    ]
    for split in ("train", "val", "test"):
        counts = ", ".join(f"{name} {count}" for name, count in cache.class_counts(split).items())
        number = len(cache.indices(split))
        lines += [f"  {split}: {number} ({counts})"] if number else []
    return "\n".join(lines)


def _warn(cache: XrayCache) -> None:
    empty = [name for name, count in cache.class_counts("train").items() if count == 0]
    if empty:
        print(f"warning: {cache.name} has no training image of: {', '.join(empty)}", file=sys.stderr)
    shared = cache.patients_in_several_splits()
    if shared:
        names = ", ".join(shared[:5]) + (", ..." if len(shared) > 5 else "")
        print(f"warning: {cache.name} has {len(shared)} patients in more than one split: {names}", file=sys.stderr)
