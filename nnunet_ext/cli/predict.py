"""Predict segmentations with a trained model: nnUNetv2_predict with the same flags, safe loading of checkpoints,
inputs checked before any work, and output files that are whole or absent.

  nnunet_ext predict -i IN -o OUT -d 115 -c 3d_fullres -tr UCITrainer -f 0
  nnunet_ext predict -i IN -o OUT -m MODEL_FOLDER -f 0
  nnunet_ext predict -i IN -o OUT -d 43 -c 3d_fullres -tr MAMLTrainer -f 0 --modalities T1ce,FLAIR

A model of MAMLTrainer predicts each case from the modalities whose files are there: any of CASE_0000, CASE_0001, ...
may be absent. A model of TMCTrainer reads a sentence per case (--prompts), or the default one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from nnunet_ext.utilities.errors import UsageError

HELP = "predict segmentations with a trained model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of nnUNetv2_predict and nnUNetv2_predict_from_modelfolder, and those of missing modalities."""
    parser.add_argument("-i", required=True, help="input folder with files CASE_0000.nii.gz, one per channel")
    parser.add_argument("-o", required=True, help="output folder, created if absent")
    add_model_arguments(parser)
    add_window_arguments(parser)
    parser.add_argument("--verbose", action="store_true", help="say more")
    parser.add_argument("--save_probabilities", action="store_true", help="write probabilities too (for ensembles)")
    parser.add_argument("--continue_prediction", "--c", action="store_true", help="skip cases that are predicted")
    parser.add_argument("-prev_stage_predictions", help="folder of the previous stage's predictions (cascade)")
    parser.add_argument("-num_parts", type=int, default=1, help="number of calls that share the cases [1]")
    parser.add_argument("-part_id", type=int, default=0, help="which of them this one is, from 0 [0]")
    parser.add_argument("--disable_progress_bar", action="store_true", help="no progress bars")
    modalities = parser.add_mutually_exclusive_group()
    modalities.add_argument(
        "--modalities", metavar="NAME,...", help="MAMLTrainer: read these modalities only, by name or place [all there]"
    )
    modalities.add_argument(
        "--all-subsets", action="store_true", help="MAMLTrainer: a folder in OUT for every subset of the modalities"
    )
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument(
        "--prompts", metavar="FILE", help="TMCTrainer: a sentence per case, JSON, CSV or XLSX [the default prompt]"
    )
    prompts.add_argument("--prompt", metavar="TEXT", help="TMCTrainer: one sentence for every case")


def add_window_arguments(parser: argparse.ArgumentParser) -> None:
    """How the window slides, and in how many processes."""
    parser.add_argument("-step_size", type=float, default=0.5, help="step of the sliding window, of a patch [0.5]")
    parser.add_argument("--disable_tta", action="store_true", help="no mirroring: faster, less accurate")
    parser.add_argument("--not_on_device", action="store_true", help="collect logits on the CPU: less GPU memory")
    parser.add_argument("-npp", type=int, default=_from_environment("nnUNet_npp"), help="preprocessing processes [3]")
    parser.add_argument("-nps", type=int, default=_from_environment("nnUNet_nps"), help="export processes [3]; 0: none")


def add_model_arguments(parser: argparse.ArgumentParser, trainer: str = "nnUNetTrainer") -> None:
    """Which trained model: -d -c -tr -p or -m; folds, checkpoint, device."""
    add_folder_arguments(parser, trainer)
    parser.add_argument("-chk", default="checkpoint_final.pth", help="checkpoint [checkpoint_final.pth]")
    parser.add_argument("-device", default="cuda", choices=("cuda", "cpu", "mps"), help="device [cuda]")
    parser.add_argument(
        "--trust-checkpoint", action="store_true", help="load checkpoints that may run code; for your own files only"
    )


def add_folder_arguments(
    parser: argparse.ArgumentParser, trainer: str, folds: Sequence[int] = (0, 1, 2, 3, 4), purpose: str = " to average"
) -> None:
    """Of these the folder, for `model_folder`, and the folds."""
    parser.add_argument("-d", help="data set name or ID that the model was trained on")
    parser.add_argument("-c", help="configuration, e.g. 3d_fullres")
    parser.add_argument("-tr", default=trainer, help="trainer [%(default)s]")
    parser.add_argument("-p", default="nnUNetPlans", help="plans [nnUNetPlans]")
    parser.add_argument("-m", help="model folder, instead of -d -c -tr -p")
    listed = " ".join(map(str, folds))
    parser.add_argument("-f", nargs="+", type=fold, default=tuple(folds), help=f"folds{purpose} [{listed}]")


def fold(text: str) -> int | str:
    """``"3"`` -> 3, ``"all"`` -> ``"all"``; ValueError otherwise."""
    return text if text == "all" else int(text)


def model_folder(args: argparse.Namespace) -> Path:
    """The folder of the trained model that -m, or -d -c -tr -p, name.

    Raises:
        UsageError: neither or both, or no such data set.
    """
    if (args.m is None) == (args.d is None) or (args.d is not None and args.c is None):
        raise UsageError(
            "name the model either by -d DATASET -c CONFIGURATION [-tr TRAINER] [-p PLANS] or by -m FOLDER"
        )
    if args.m is not None:
        return Path(args.m)
    from nnunet_ext.utilities.datasets import dataset_name, nnunet_folder

    return nnunet_folder("nnUNet_results") / dataset_name(args.d) / f"{args.tr}__{args.p}__{args.c}"


def run(args: argparse.Namespace) -> int:
    """Predict; prints where the segmentations are."""
    check_numbers(args)
    if not 0 <= args.part_id < args.num_parts:
        raise UsageError(f"-part_id {args.part_id} is outside the range [0, {args.num_parts - 1}] of -num_parts")
    folder = model_folder(args)
    import torch

    from nnunet_ext.inference.predictor import ExtensionPredictor
    from nnunet_ext.inference.subsets import SubsetPredictor
    from nnunet_ext.inference.trained_model import torch_device

    device = torch_device(args.device)
    if device.type == "cuda":
        torch.set_num_threads(1)  # as the host: more threads do not help there
    with long_run(args.quiet):
        no_bar = args.quiet or args.disable_progress_bar
        predictor = (SubsetPredictor if args.all_subsets else ExtensionPredictor)(
            tile_step_size=args.step_size,
            use_mirroring=not args.disable_tta,
            perform_everything_on_device=not args.not_on_device,
            device=device,
            verbose=args.verbose,
            verbose_preprocessing=args.verbose,
            allow_tqdm=not no_bar and sys.stderr.isatty(),
            trust_checkpoint=args.trust_checkpoint,
            quiet=no_bar,
            only_modalities=args.modalities,
            prompts=args.prompts,
            prompt=args.prompt,
        )
        predictor.initialize_from_trained_model_folder(str(folder), args.f, args.chk)
        previous = predictor.configuration_manager.previous_stage_name
        if previous is not None and args.prev_stage_predictions is None:
            raise UsageError(
                f"this model refines predictions of {previous}: give their folder, -prev_stage_predictions"
            )
        predictor.predict_from_files(
            args.i,
            args.o,
            save_probabilities=args.save_probabilities,
            overwrite=not args.continue_prediction,
            num_processes_preprocessing=args.npp,
            num_processes_segmentation_export=args.nps,
            folder_with_segs_from_prev_stage=args.prev_stage_predictions,
            num_parts=args.num_parts,
            part_id=args.part_id,
        )
    if not args.quiet:
        print(f"segmentations are in {args.o}")
    return 0


@contextlib.contextmanager
def long_run(quiet: bool) -> Iterator[None]:
    """Inside, SIGTERM (a cluster ends jobs by it) leaves as Ctrl-C does, without processes and half-written files; if
    `quiet`, nothing is printed."""
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)))
        if quiet:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(Path(os.devnull).open("w"))))
        yield


def check_numbers(args: argparse.Namespace) -> None:
    """Raises UsageError for a number of `add_window_arguments` that is out of its range."""
    if not 0 < args.step_size <= 1:
        raise UsageError(f"-step_size {args.step_size:g} is outside the range (0, 1]")
    for name in ("npp", "nps"):
        if getattr(args, name) < 0:
            raise UsageError(f"-{name} {getattr(args, name)} must be 0 (in this process) or more")


def _from_environment(variable: str, default: int = 3) -> int:
    try:
        return int(os.environ.get(variable, default))
    except ValueError:
        return default
