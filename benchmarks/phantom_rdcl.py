"""Do other lesions help RDCL on phantoms? 4 CTs with COVID-19 to learn from, 40 with other lesions, 12 to test on.

    python benchmarks/phantom_rdcl.py                 # three seeds, 800 iterations: about 10 CPU-minutes per seed
    python benchmarks/phantom_rdcl.py --iterations 200 --lr 0.02 --seeds 0

Per seed: nnU-Net on the other lesions (where the general encoder starts), then nnU-Net, RDCL with `ablation=baseline`
and RDCL on the 4 CTs, all with 8 to 64 channels, patches of the whole volume (16 x 40 x 40), batch 2, SGD, no
augmentation, and the same number of iterations. Prints the mean Dice of the 12 test CTs; each seed has its own 4.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

TARGET, OTHERS = "Dataset990_COVID1920", "Dataset992_OtherLesions"
NUM_TARGETS, NUM_TRAINING, NUM_OTHERS, SHAPE = 16, 4, 40, (16, 40, 40)
ITERATIONS_PER_EPOCH = 20
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def main() -> None:
    """Make the data, then print a line per seed and arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2), help="each below 4 [0 1 2]")
    parser.add_argument("--iterations", type=int, default=800, help="of every training [800]")
    parser.add_argument("--lr", type=float, default=0.015, help="initial learning rate [0.015]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for seed in args.seeds:
            for arm, dice in arms(Path(folder) / "nnUNet_preprocessed", seed, args.iterations, args.lr):
                print(f"seed {seed}  {arm:9s} Dice {dice:.3f}", flush=True)


def prepare(folder: Path) -> None:
    """Phantoms, preprocessed and linked, below `folder`, and the environment that nnU-Net reads."""
    for name in FOLDERS:
        (folder / name).mkdir()
        os.environ[name] = str(folder / name)
    # So small a network gains nothing from a second thread, and loses much if another program wants the core.
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1"}
    phantoms, shape = folder / "phantoms", map(str, SHAPE)
    ours = (sys.executable, "-m", "nnunet_ext.cli.main")
    numbers = ("--cts", str(NUM_TARGETS), "--others", str(NUM_OTHERS), "--xrays", "0")
    planner = str(Path(sys.executable).parent / "nnUNetv2_plan_and_preprocess")
    for command in (
        (*ours, "phantom", str(phantoms), *numbers, "--shape", *shape),
        (*ours, "convert", "covid19_20", str(phantoms / "covid19_20"), "--id", "990"),
        (*ours, "convert", "msd", str(phantoms / "Task90_OtherLesions"), "--id", "992"),
        (planner, "-d", "990", "-c", "3d_fullres", "-np", "1", "-npfp", "1"),
        (*ours, "link", "990", "--non-target", "992", "-c", "3d_fullres", "-np", "1"),
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ["nnUNet_n_proc_DA"] = "0"


def arms(preprocessed: Path, seed: int, iterations: int, learning_rate: float) -> Any:
    """Yield (name, mean Dice) of the three arms."""
    from nnunet_ext.trainers.baseline import BaselineTrainer
    from nnunet_ext.trainers.rdcl import RDCLTrainer
    from nnunet_ext.utilities.files import load_json, save_json

    images = preprocessed.parent / "nnUNet_raw" / TARGET / "imagesTr"
    cases = sorted(file.name.removesuffix("_0000.nii.gz") for file in images.iterdir())
    training = cases[NUM_TRAINING * seed : NUM_TRAINING * (seed + 1)]
    split = {"train": training, "val": [case for case in cases if case not in training]}
    save_json([split], preprocessed / TARGET / "splits_final.json")

    def train(folder: str, plans_name: str, trainer: Any, fold: Any, tag: str, **settings: Any) -> Any:
        import torch

        plans = load_json(preprocessed / folder / f"{plans_name}.json")
        plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [8, 16, 32, 64]
        plans["plans_name"] = f"{tag}_{seed}"
        epochs = max(1, iterations // ITERATIONS_PER_EPOCH)
        length = {
            "num_epochs": epochs,
            "num_iterations_per_epoch": ITERATIONS_PER_EPOCH,
            "num_val_iterations_per_epoch": 1,
        }
        common = {**length, "initial_lr": learning_rate, "seed": seed}
        plans["nnunet_ext"] = {trainer.settings_class.trainer: {**common, **settings}}
        dataset_json = load_json(preprocessed / folder / "dataset.json")
        with contextlib.redirect_stdout(None):
            run = without_augmentation(trainer)(plans, "3d_fullres", fold, dataset_json, torch.device("cpu"))
            run.run_training()
        return run

    general = train(OTHERS, "nnUNetPlans_of_990", BaselineTrainer, "all", "general")
    start = {"general_weights": str(Path(general.output_folder) / "checkpoint_final.pth")}
    yield "nnU-Net", mean_dice(train(TARGET, "nnUNetPlans", BaselineTrainer, 0, "nnunet"))
    baseline = {**start, "ablation": "baseline"}
    yield "baseline", mean_dice(train(TARGET, "nnUNetPlans", RDCLTrainer, 0, "baseline", **baseline))
    yield "full", mean_dice(train(TARGET, "nnUNetPlans", RDCLTrainer, 0, "full", **start))


def without_augmentation(trainer: Any) -> Any:
    """The same trainer on patches as they are cut."""

    def transforms(*arguments: Any, **options: Any) -> Any:
        options.pop("use_mask_for_norm")
        return trainer.get_validation_transforms(arguments[2], **options)

    def sizes(self: Any) -> Any:
        rotation, _, _, _ = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(self)
        return rotation, False, self.configuration_manager.patch_size, None

    members = {
        "__module__": trainer.__module__,
        "get_training_transforms": staticmethod(transforms),
        "configure_rotation_dummyDA_mirroring_and_inital_patch_size": sizes,
    }
    return type(trainer.__name__, (trainer,), members)


def mean_dice(trainer: Any) -> float:
    """Over the test CTs, each as large as a patch."""
    import torch

    trainer.set_deep_supervision_enabled(False)
    with contextlib.redirect_stdout(None):
        network, (_, cases) = trainer.network.eval(), trainer.do_split()
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, cases)
    scores = []
    for case in cases:
        data, label, _, _ = dataset.load_case(case)
        lesion = np.asarray(label[0]) == 1
        with torch.no_grad():
            found = network(torch.from_numpy(data[:])[None]).argmax(1)[0].numpy() == 1
        scores.append(2 * (lesion & found).sum() / (lesion.sum() + found.sum()))
    return float(np.mean(scores))


if __name__ == "__main__":
    main()
