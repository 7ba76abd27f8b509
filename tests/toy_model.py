"""A trained model, as small as nnU-Net's format allows, and images for it."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

DATASET_JSON = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "lesion": 1},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
NETWORK = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        "n_stages": 2,
        "features_per_stage": [4, 8],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    },
    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
}


def tiny_plans():
    """Plans of patch 16x16x16 at 1 mm, for one CT channel."""
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [16, 16, 16],
        "median_image_size_in_voxels": [20.0, 18.0, 22.0],
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": False,
        "architecture": NETWORK,
    }
    for kind in ("data", "seg", "probabilities"):
        options = {"is_seg": kind == "seg", "order": 1, "order_z": 0, "force_separate_z": None}
        configuration[f"resampling_fn_{kind}"] = "resample_data_or_seg_to_shape"
        configuration[f"resampling_fn_{kind}_kwargs"] = options
    return {
        "dataset_name": "Dataset901_Tiny",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [20, 18, 22],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
        "configurations": {"3d_fullres": configuration},
    }


def stock_checkpoint(plans, weights, trainer_name="nnUNetTrainer"):
    """The keys and kinds of value of a checkpoint of nnU-Net v2's own trainer, NumPy numbers in the log included."""
    import torch

    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([parameter], 1e-2, momentum=0.99, nesterov=True)
    parameter.sum().backward()
    optimizer.step()
    return {
        "network_weights": weights,
        "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 0},
        "logging": {
            "mean_fg_dice": [np.float64(0.25), np.float64(0.5)],
            "dice_per_class_or_region": [[np.float64(0.25)], [np.float32(0.5)]],
            "train_losses": [np.float32(-0.125)],
            "num_cases": [np.int64(3), np.bool_(True)],
            "history": np.arange(3.0),
        },
        "_best_ema": np.float64(0.3),
        "current_epoch": 2,
        "init_args": {
            "plans": plans,
            "configuration": "3d_fullres",
            "fold": 0,
            "dataset_json": DATASET_JSON,
            "device": torch.device("cuda", 0),
        },
        "trainer_name": trainer_name,
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }


def write_model(folder, trainer, plans, folds):
    """A model folder of `trainer`, untrained, with random weights per fold."""
    import torch
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    for fold in folds:
        (folder / f"fold_{fold}").mkdir(parents=True)
        torch.manual_seed(fold)
        network = trainer.build_network_architecture(
            manager, manager.get_configuration("3d_fullres"), 1, 2, enable_deep_supervision=True
        )
        checkpoint = stock_checkpoint(plans, network.state_dict(), trainer.__name__)
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return folder


@pytest.fixture(scope="session")
def trained_model(tmp_path_factory) -> Path:
    """``nnUNet_results/Dataset901_Tiny/nnUNetTrainer__nnUNetPlans__3d_fullres`` with folds 0 and 1. Do not change."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    folder = tmp_path_factory.mktemp("results") / "Dataset901_Tiny" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    return write_model(folder, nnUNetTrainer, tiny_plans(), (0, 1))


@pytest.fixture
def images(tmp_path) -> Path:
    """A folder of two small volumes, ``a_0000.nii.gz`` and ``b_0000.nii.gz``."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, name in enumerate("ab"):
        volume = np.random.default_rng(seed).normal(size=(20, 18, 22)).astype(np.float32)
        sitk.WriteImage(sitk.GetImageFromArray(volume), str(folder / f"{name}_0000.nii.gz"))
    return folder
