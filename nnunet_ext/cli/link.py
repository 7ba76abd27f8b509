"""``nnunet_ext link``: say which other data sets a target learns from, and prepare them.

A relation is one flag: its data is prepared first, then ``dataset.json`` is written. What is prepared already is left
alone, and what was interrupted is continued::

    nnunet_ext link 115 --xray 700
    nnunet_ext link 201 --non-target 301 302 --unlabeled 303 -c 3d_fullres
    nnunet_ext link 401 --prompts texts.xlsx

Non-target and unlabelled data are preprocessed with the plans of the target.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunet_ext.data.linking import LinkedData, RelatedLink
    from nnunet_ext.data.related_data import Kind
    from nnunet_ext.data.xray_cache import XrayCache

HELP = "link a data set to what else it learns from (X-rays, other lesions, unlabelled images, sentences)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Target and relations."""
    parser.add_argument("target", metavar="TARGET", help="ID or name of the data set to be segmented, e.g. 115")
    parser.add_argument(
        "--xray", nargs="+", metavar="ID", help="data sets of X-rays with image-level labels (UCITrainer)"
    )
    parser.add_argument(
        "--non-target", nargs="+", metavar="ID", help="data sets of other lesions in the same modality (RDCLTrainer)"
    )
    parser.add_argument(
        "--unlabeled",
        nargs="+",
        metavar="ID",
        help="data sets of further images of the target's own kind; their labels, if any, are not read (RDCLTrainer)",
    )
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="a sentence per case: JSON (case: sentence), CSV or XLSX (columns Image, Description) (TMCTrainer)",
    )
    parser.add_argument(
        "-c",
        nargs="+",
        metavar="CONFIG",
        help="configurations to preprocess non-target and unlabelled data for (default: those that the target is"
        " preprocessed for)",
    )
    parser.add_argument(
        "-p",
        default="nnUNetPlans",
        metavar="PLANS",
        help="plans of the target to preprocess them with (default: nnUNetPlans)",
    )
    parser.add_argument("--size", type=int, default=256, help="side of the cached X-rays in pixels (default: 256)")
    parser.add_argument("-np", type=int, default=2, metavar="N", help="images to work on at a time (default: 2)")


def run(args: argparse.Namespace) -> int:
    """Prepare what is linked, then write the relation; 0 on success.

    Raises:
        UsageError: the target or a linked data set is missing or unusable; nothing is linked then.
    """
    from nnunet_ext.utilities.errors import UsageError

    related: dict[Kind, list[str]] = {"non_target": args.non_target or [], "unlabeled": args.unlabeled or []}
    if not args.xray and not args.prompts and not any(related.values()):
        raise UsageError(
            "nothing to link; name a relation, e.g.: nnunet_ext link 115 --xray 700, or nnunet_ext link 201"
            " --non-target 301"
        )
    if args.size < 16 or args.np < 1:
        raise UsageError(f"--size {args.size} must be at least 16 and -np {args.np} at least 1")

    from nnunet_ext.data.linking import check_related, link_related, link_xrays, require_segmentation_target
    from nnunet_ext.utilities.datasets import dataset_name

    target = dataset_name(args.target)
    prepared = require_segmentation_target(target)
    link = check_related(target, related, args.p, args.c) if any(related.values()) else None
    if args.prompts:
        _link_prompts(target, args.prompts, args.quiet)
    if args.xray:
        caches = link_xrays(target, args.xray, args.size, args.np, args.quiet)
        if not args.quiet:
            _tell_xrays(target, caches, prepared)
    if link is not None:
        linked = link_related(link, args.np, args.quiet)
        if not args.quiet:
            _tell_related(link, linked)
    return 0


def _link_prompts(target: str, file: str, quiet: bool) -> None:
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    from nnunet_ext.data.prompts import link_prompts, listed, read_prompts
    from nnunet_ext.utilities.datasets import raw_folder

    prompts = read_prompts(file, get_filenames_of_train_images_and_targets(str(raw_folder(target))))
    link_prompts(target, prompts)
    if not quiet:
        distinct = len(set(prompts.sentences.values()))
        print(f"{target}: {len(prompts.sentences)} sentences, {distinct} of them different")
        if prompts.missing:
            print(f"  {len(prompts.missing)} cases have none and get the default prompt: {listed(prompts.missing)}")


def _tell_related(link: RelatedLink, linked: LinkedData) -> None:
    from nnunet_ext.data.related_data import related_name
    from nnunet_ext.utilities.datasets import dataset_id

    for dataset in link.datasets:
        kind = "non-target" if dataset.labelled else "unlabelled, no label is read"
        print(f"{dataset.name}: {len(dataset.cases)} cases ({kind}), preprocessed as {link.target} is:")
        for configuration, folder in zip(link.configurations, linked.folders[dataset.name], strict=True):
            print(f"  {configuration}: {folder}")
    for warning in linked.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{link.target} now learns from {', '.join(linked.folders)}; next:")
    plans, configuration = link.plans["plans_name"], link.configurations[0]
    named = "" if plans == "nnUNetPlans" else f" -p {plans}"
    for dataset in link.datasets:
        if dataset.labelled:
            print(
                f"  nnUNetv2_train {dataset_id(dataset.name)} {configuration} all -p {related_name(plans, link.target)}"
                "   # weights for the general encoder (setting general_weights)"
            )
    print(f"  nnUNetv2_train {dataset_id(link.target)} {configuration} 0 -tr RDCLTrainer{named}")


def _tell_xrays(target: str, caches: list[XrayCache], prepared: bool) -> None:
    from nnunet_ext.utilities.datasets import dataset_id

    for cache in caches:
        print(_summary(cache))
        _warn(cache)
    print(f"{target} now learns from {', '.join(cache.name for cache in caches)}; next:")
    if not prepared:
        print(f"  nnUNetv2_plan_and_preprocess -d {dataset_id(target)} --verify_dataset_integrity")
    print(f"  nnUNetv2_train {dataset_id(target)} 3d_fullres 0 -tr UCITrainer")


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
