"""nnU-Net's own search for patch and batch, with the network that a trainer really builds."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import nnunetv2
import numpy as np
import torch
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.json_export import recursive_fix_for_json_export
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.settings.base import PLANS_KEY, Settings
from nnunet_ext.trainers.base import ExtensionTrainer
from nnunet_ext.utilities.datasets import dataset_name
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.plans import SMALLEST_NUM_STAGES

FITTED = ("patch_size", "batch_size", "architecture")


def fitted_configuration(
    name_or_id: str | int,
    plans: dict[str, Any],
    configuration: str,
    trainer: type[ExtensionTrainer[Any]],
    settings: Settings,
    gigabytes: float,
) -> dict[str, Any]:
    """Patch size, batch size and architecture by which training `trainer` takes about `gigabytes` of GPU memory.

    The rule is that of the planner that made the plans, which starts from its largest patch and shrinks it, at least
    two images in a batch and the width unchanged, until the feature maps fit; here it asks the network of `trainer` for
    their number (``compute_conv_feature_map_size``) rather than a single U-Net.

    Raises:
        UsageError: no such configuration, one that inherits its network, an unknown planner or too little memory.
    """
    content = plans["configurations"].get(configuration, {})
    if "architecture" not in content:
        raise UsageError(f"-c {configuration} is not in the plans, or inherits its network; name one that has its own")
    if not gigabytes > 0:
        raise UsageError(f"--gpu-memory {gigabytes:g} must be above 0 (GB)")
    folder = nnunetv2.__path__[0] + "/experiment_planning"
    planner_class = recursive_find_python_class(
        folder, plans["experiment_planner_used"], "nnunetv2.experiment_planning"
    )
    if planner_class is None:
        raise UsageError(f"nnU-Net has no planner {plans['experiment_planner_used']}, which made these plans")
    planner = planner_class(dataset_name(name_or_id), gpu_memory_target_in_gb=gigabytes)
    planner.UNet_base_num_features = content["architecture"]["arch_kwargs"]["features_per_stage"][0]

    def feature_maps(patch_size: Any, channels: int, classes: int, name: str, arguments: Any, imports: Any) -> int:
        own = deepcopy(plans)
        own.setdefault(PLANS_KEY, {})[settings.trainer] = settings.to_dict()
        architecture = {"network_class_name": name, "arch_kwargs": dict(arguments), "_kw_requires_import": imports}
        own["configurations"][configuration] |= {"patch_size": list(patch_size), "architecture": architecture}
        manager = PlansManager(own)
        with torch.device("meta"):
            network: Any = trainer.build_network_architecture(
                manager, manager.get_configuration(configuration), channels, classes, True
            )
        return int(network.compute_conv_feature_map_size(patch_size))

    planner.static_estimate_VRAM_usage = feature_maps
    shape = content["median_image_size_in_voxels"]
    voxels = float(np.prod(shape)) * planner.dataset_json["numTraining"]
    planned = planner.get_plans_for_configuration(
        np.array(content["spacing"]), shape, content["data_identifier"], voxels, {}
    )
    if planned["architecture"]["arch_kwargs"]["n_stages"] < SMALLEST_NUM_STAGES:
        raise UsageError(
            f"--gpu-memory {gigabytes:g} is too little for {settings.trainer}: a patch of"
            f" {tuple(map(int, planned['patch_size']))} voxels would be left; give more, or set the sizes yourself"
            " (--patch-size, --features)"
        )
    fitted = {key: planned[key] for key in FITTED}
    recursive_fix_for_json_export(fitted)
    fitted["patch_size"] = list(fitted["patch_size"])
    return fitted
