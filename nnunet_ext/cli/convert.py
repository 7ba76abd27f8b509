"""Convert a public data set to nnU-Net's layout.

  nnunet_ext convert --list
  nnunet_ext convert covid19_20 SRC --id 115
  nnunet_ext convert chestxr SRC --id 700
  nnunet_ext convert covid_semiseg SRC --id 201
  nnunet_ext convert covid_semiseg SRC --id 303 --unlabeled
  nnunet_ext convert sarcoma_ct SRC --id 301 --slices
  nnunet_ext convert brats SRC --id 137 --task regions
  nnunet_ext convert monuseg_text SRC --id 401 --cross-validation

Volumes and slices get patient-grouped folds, X-rays a labels.csv; both a manifest.json with a hash of every source
file. A second run does nothing if nothing changed. Bad cases are named with their reasons, and then nothing is written.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nnunet_ext.utilities.errors import UsageError

HELP = "convert a public data set to nnUNet_raw"
SPECIAL = (
    "task",
    "coronacases_window",
    "unlabeled",
    "slices",
    "window",
    "ignore_label_headers",
    "lists",
    "grid",
    "register",
    "cross_validation",
)
"""Options that only some converters take."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to convert, from where, to which ID, and how to treat what is special."""
    parser.add_argument("dataset", nargs="?", metavar="DATASET", help="one of those that --list shows")
    parser.add_argument("source", nargs="?", metavar="SRC", type=Path, help="folder of the downloaded data set")
    parser.add_argument("--list", action="store_true", help="list the data sets that can be converted")
    parser.add_argument("--id", type=int, help="ID of the nnU-Net data set, 1 to 999")
    parser.add_argument("--name", help="name of the nnU-Net data set [that of the converter]")
    parser.add_argument("-np", dest="processes", type=int, default=4, help="worker processes [4]")
    parser.add_argument(
        "--holdout", nargs="+", default=[], metavar="CASE", help="cases to keep out of training, for testing"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a data set that differs")
    parser.add_argument("--skip-bad", action="store_true", help="leave bad cases out instead of stopping")
    parser.add_argument(
        "--task",
        help="brats: labels or regions [labels]; covid_ct_seg: infection, lung or lung_and_infection; covid_semiseg:"
        " infection or multiclass [infection]",
    )
    parser.add_argument(
        "--coronacases-window",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="HU of 0 and 255 where Coronacases come in 8 bits; covid_ct_seg: [-1250 250]; covid_semiseg --unlabeled:"
        " bring them to the window of the labelled slices [leave them as they are]",
    )
    parser.add_argument(
        "--unlabeled", action="store_true", default=None, help="covid_semiseg: the slices without labels instead"
    )
    parser.add_argument(
        "--slices", action="store_true", default=None, help="sarcoma_ct: 2D slices that hold tumour instead of volumes"
    )
    parser.add_argument(
        "--window",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="sarcoma_ct --slices: HU of the grey values 0 and 255 [-1250 250, a lung window]",
    )
    parser.add_argument(
        "--ignore-label-headers",
        action="store_true",
        default=None,
        help="lits, msd: masks take the header of their image, whatever their own says",
    )
    parser.add_argument(
        "--cross-validation",
        action="store_true",
        default=None,
        help="monuseg_text, mosmed_plus, qata_cov19: five folds over Train_Folder and Val_Folder, not LViT's split",
    )
    parser.add_argument("--lists", type=Path, metavar="FOLDER", help="chestxray14, chestxr: folder of split lists")
    parser.add_argument("--grid", help="sarcoma: CT, MR_T1 or PET, on whose grid all three are written [CT]")
    parser.add_argument(
        "--register",
        action="store_true",
        default=None,
        help="sarcoma: register the others rigidly to that one, and move them where the tumour masks gain by it",
    )


def run(args: argparse.Namespace) -> int:
    """Convert; prints what was done and what to do next. Bad cases are a UsageError."""
    from nnunet_ext.dataset_conversion.registry import CONVERTERS, converter
    from nnunet_ext.dataset_conversion.run import convert, full_name

    if args.list:
        for name in CONVERTERS:
            print(f"{name:24}{converter(name).HELP}")
        return 0
    if args.dataset is None or args.source is None or args.id is None:
        raise UsageError("convert needs DATASET SRC --id ID (nnunet_ext convert --list shows the data sets)")
    module = converter(args.dataset)
    options = {key: getattr(args, key) for key in SPECIAL if getattr(args, key) is not None}
    for key in options:
        if key not in module.OPTIONS:
            raise UsageError(f"--{key.replace('_', '-')} does not apply to {args.dataset}")
    conversion = module.plan(args.source, **options)
    outcome = convert(
        conversion,
        full_name(args.id, args.name or conversion.name or module.NAME),
        holdout=args.holdout,
        processes=args.processes,
        overwrite=args.overwrite,
        skip_bad=args.skip_bad,
        quiet=args.quiet,
    )
    if not args.quiet:
        lines = conversion.summary(outcome.manifest["cases"]) if conversion.summary else []
        _report(outcome.folder, outcome.written, outcome.manifest, args.id, lines)
    return 0


def _report(folder: Path, written: bool, manifest: dict[str, Any], dataset_id: int, lines: list[str]) -> None:
    from nnunet_ext.utilities.datasets import relations
    from nnunet_ext.utilities.files import load_json

    if not written:
        print(f"{folder} is up to date: sources and options have not changed")
        return
    splits = [entry["split"] for entry in manifest["cases"].values()]
    counts = ", ".join(f"{splits.count(split)} {split}" for split in ("train", "val", "test") if split in splits)
    slices = sum(entry.get("slices", 0) for entry in manifest["cases"].values())
    print(f"wrote {folder}: {counts}" + (f" ({slices} slices)" if slices else ""))
    for line in lines:
        print(f"  {line}")
    for name, entry in manifest["skipped"].items():
        print(f"  skipped {name}: {entry['reason']}")
    if relations(load_json(folder / "dataset.json")).get("labels") == "none":
        print(f"next: nnunet_ext link TARGET --unlabeled {dataset_id}")
    elif (folder / "splits_final.json").is_file():
        print(f"next: nnUNetv2_plan_and_preprocess -d {dataset_id} --verify_dataset_integrity")
    else:
        print(f"next: nnunet_ext link TARGET --xray {dataset_id}")
