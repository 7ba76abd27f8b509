"""nnU-Net plans: reading, changing and writing them under a new name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_ext.utilities.datasets import dataset_id, preprocessed_folder
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json, save_json

SMALLEST_NUM_STAGES = 3


@dataclass(frozen=True)
class PlanChanges:
    """What to change in one configuration; None leaves it as it is."""

    configuration: str
    patch_size: Sequence[int] | None = None
    batch_size: int | None = None
    features_per_stage: Sequence[int] | None = None
    planned: Mapping[str, Any] | None = None
    """Keys of the configuration that a planner has decided, instead of the others here."""


def load_plans(name_or_id: str | int, plans_name: str) -> dict[str, Any]:
    """Plans of a preprocessed data set.

    Raises:
        UsageError: no such file; the message lists the plans that exist.
    """
    folder = preprocessed_folder(name_or_id)
    file = folder / f"{plans_name}.json"
    if not file.is_file():
        present = ", ".join(sorted(f.stem for f in folder.glob("*lans*.json"))) or "none"
        raise UsageError(
            f"{file} does not exist (plans here: {present}); run: nnUNetv2_plan_and_preprocess"
            f" -d {dataset_id(folder.name)} -c 3d_fullres --verify_dataset_integrity"
        )
    plans: dict[str, Any] = load_json(file)
    return plans


def write_plans(
    name_or_id: str | int, plans_name: str, suffix: str, trainer: str, changes: PlanChanges, settings: dict[str, Any]
) -> Path:
    """Write ``{plans_name}_{suffix}.json`` with `changes` and checked `settings` of `trainer`.

    The data identifier stays, so nothing is preprocessed again. Settings already in the plans are kept unless named.

    Raises:
        UsageError: unknown configuration, impossible patch, wrong setting, or a suffix unfit for a file name.
    """
    if not suffix.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"--name {suffix!r} may hold letters, digits, - and _ only: it becomes part of folder names")
    if "__" in suffix:
        raise UsageError(f"--name {suffix!r} may not hold '__', which separates the parts of nnU-Net's folder names")
    plans = changed_plans(load_plans(name_or_id, plans_name), changes)
    plans["plans_name"] = f"{plans_name}_{suffix}"
    ours = plans.setdefault("nnunet_ext", {})
    ours[trainer] = {**ours.get(trainer, {}), **settings}
    path = preprocessed_folder(name_or_id) / f"{plans['plans_name']}.json"
    save_json(plans, path)
    return path


def changed_plans(plans: dict[str, Any], changes: PlanChanges) -> dict[str, Any]:
    """A copy of `plans` in which one configuration has the patch, batch and width of `changes`.

    A new patch or width plans the topology again by nnU-Net's own rule; the patch grows to the size that its
    strides divide, as in nnU-Net.
    """
    plans = deepcopy(plans)
    if changes.configuration not in plans["configurations"]:
        raise UsageError(
            f"-c {changes.configuration} is not in the plans; they have {', '.join(plans['configurations'])}"
        )
    configuration = plans["configurations"][changes.configuration]
    if changes.planned is not None:
        configuration.update(changes.planned)
        return plans
    if changes.batch_size is not None:
        if changes.batch_size < 1:
            raise UsageError(f"--batch-size {changes.batch_size} must be at least 1")
        configuration["batch_size"] = changes.batch_size
    if changes.patch_size is None and changes.features_per_stage is None:
        return plans
    if "architecture" not in configuration:
        raise UsageError(
            f"-c {changes.configuration} inherits its network; change {configuration.get('inherits_from')}"
        )
    _replan_topology(configuration, changes)
    return plans


def _replan_topology(configuration: dict[str, Any], changes: PlanChanges) -> None:
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    spacing, patch = configuration["spacing"], list(changes.patch_size or configuration["patch_size"])
    if len(patch) != len(spacing) or min(patch) < 4:
        raise UsageError(f"--patch-size {patch} must have {len(spacing)} numbers of at least 4 (voxels)")
    _, strides, kernel_sizes, patch, _ = get_pool_and_conv_props(spacing, patch, 4, 999999)
    architecture = configuration["architecture"]["arch_kwargs"]
    features = changes.features_per_stage
    if features is None:
        base, limit = architecture["features_per_stage"][0], 320 if len(patch) == 3 else 512
        features = [min(base * 2**i, limit) for i in range(len(strides))]
    stages = min(len(strides), len(features))
    if stages < SMALLEST_NUM_STAGES:
        raise UsageError(
            f"--patch-size {patch} and --features {list(features)} leave {stages} stages; nnU-Net's deep supervision"
            f" needs {SMALLEST_NUM_STAGES} (with fewer its loss is not a number): enlarge the patch or add features"
        )
    configuration["patch_size"] = [int(size) for size in patch]
    architecture.update(
        n_stages=stages,
        features_per_stage=list(features[:stages]),
        strides=[list(s) for s in strides[:stages]],
        kernel_sizes=[list(k) for k in kernel_sizes[:stages]],
    )
    for key, length in (
        ("n_conv_per_stage", stages),
        ("n_blocks_per_stage", stages),
        ("n_conv_per_stage_decoder", stages - 1),
    ):
        if key in architecture:
            architecture[key] = (architecture[key] + architecture[key][-1:] * length)[:length]
