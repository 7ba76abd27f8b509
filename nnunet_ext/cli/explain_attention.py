"""Show where a model of MAMLTrainer looks: the attention maps A_i of its modalities (Eq. 1 and Fig. 2 of the paper).

  nnunet_ext explain attention -i IMAGES -d 43 -c 3d_fullres -p nnUNetPlans_maml -f 0
  nnunet_ext explain attention -i IMAGES -m MODEL_FOLDER -f 0 1 2 -o OUT --modalities T1ce,FLAIR

Writes CASE_attention_NAME.nii.gz (A_i of a modality, mean over its channels, on the grid of the image; 0 outside of
what nnU-Net crops to), CASE_attention.png (a slice of each modality and its map) and attention.csv (mean A_i over the
image and over the predicted foreground, which nnunet_ext report shows). Several folds: their mean.

Any files of a case may be absent, as for nnunet_ext predict. A case with one modality is left out: its stream segments
it alone, without attention.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnunet_ext.cli.predict import add_model_arguments, add_window_arguments, check_numbers, long_run, model_folder

HELP = "attention maps of MAMLTrainer for cases"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Images, which trained model, where to, how."""
    parser.add_argument("-i", required=True, help="input folder with files CASE_0000.nii.gz, one per channel")
    parser.add_argument(
        "-o", type=Path, metavar="OUT", help="output folder [fold_X/attention of the model; of several: attention]"
    )
    add_model_arguments(parser, "MAMLTrainer")
    add_window_arguments(parser)
    parser.add_argument(
        "--modalities", metavar="NAME,...", help="read these modalities only, by name or place [all there]"
    )


def run(args: argparse.Namespace) -> int:
    """Predict, write, print."""
    check_numbers(args)
    folder = model_folder(args)
    import torch

    from nnunet_ext.evaluation.attention import FOLDER_NAME
    from nnunet_ext.inference.attention import AttentionPredictor
    from nnunet_ext.inference.trained_model import torch_device

    device = torch_device(args.device)
    if device.type == "cuda":
        torch.set_num_threads(1)  # as the host: more threads do not help there
    folds = list(dict.fromkeys(args.f))
    beside = folder / f"fold_{folds[0]}" / FOLDER_NAME if len(folds) == 1 else folder / FOLDER_NAME
    output = beside if args.o is None else args.o
    with long_run(args.quiet):
        predictor = AttentionPredictor(
            tile_step_size=args.step_size,
            use_mirroring=not args.disable_tta,
            perform_everything_on_device=not args.not_on_device,
            device=device,
            allow_tqdm=not args.quiet and sys.stderr.isatty(),
            trust_checkpoint=args.trust_checkpoint,
            quiet=args.quiet,
            only_modalities=args.modalities,
        )
        predictor.initialize_from_trained_model_folder(str(folder), folds, args.chk)
        table = predictor.explain(args.i, output, args.npp, args.nps)
        print(f"{table.text()}\nmaps, figures and attention.csv are in {output}")
    return 0
