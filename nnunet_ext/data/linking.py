"""Link a target to the data sets that it learns from: everything is checked, then prepared, then written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_ext.data.related_data import FLAGS, Kind, RawCase, channel_names, raw_cases
from nnunet_ext.data.related_preprocessing import (
    RelatedDataset,
    copy_labels,
    extract_fingerprint,
    preprocess_related,
    write_related_plans,
)
from nnunet_ext.data.xray_cache import XrayCache, open_xray_cache
from nnunet_ext.data.xray_cache_building import build_xray_cache
from nnunet_ext.data.xray_dataset import is_xray_dataset, read_xray_dataset, require_same_classes
from nnunet_ext.utilities.datasets import (
    dataset_id,
    dataset_name,
    nnunet_folder,
    preprocessed_folder,
    raw_folder,
    write_relation,
)
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json
from nnunet_ext.utilities.plans import load_plans


@dataclass(frozen=True)
class RelatedLink:
    """What `link` is to do for one target; made by `check_related`, done by `link_related`.

    Attributes:
        target: name of the data set to be segmented.
        plans: its plans.
        configurations: those to preprocess for; no two share a data identifier.
        datasets: what it is to learn from.
    """

    target: str
    plans: dict[str, Any]
    configurations: tuple[str, ...]
    datasets: tuple[RelatedDataset, ...]


@dataclass(frozen=True)
class LinkedData:
    """What `link_related` has done.

    Attributes:
        folders: the preprocessed folders of each data set, in the order of the configurations.
        warnings: what the user should know of.
    """

    folders: dict[str, list[Path]]
    warnings: list[str]


def require_segmentation_target(target: str) -> bool:
    """UsageError unless `target` is a data set to be segmented; returns whether it is preprocessed."""
    import os

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


def link_xrays(target: str, xrays: Sequence[str], side: int, num_processes: int, quiet: bool) -> list[XrayCache]:
    """Cache the X-rays at side x side pixels, then write the relation ``xray`` of `target`.

    Raises:
        UsageError: a data set that is unusable, or two that differ in task or classes; nothing is linked then.
    """
    names = list(dict.fromkeys(dataset_name(name) for name in xrays))
    require_same_classes([read_xray_dataset(name) for name in names])  # before the long work
    for name in names:
        build_xray_cache(name, side, num_processes, quiet)
    caches = [open_xray_cache(name, side) for name in names]
    require_same_classes(caches)
    write_relation(target, "xray", [dataset_id(name) for name in names])
    return caches


def check_related(
    target: str, related: Mapping[Kind, Sequence[str]], plans_name: str, configurations: Sequence[str] | None
) -> RelatedLink:
    """Everything that can be wrong with the data sets, found before any work.

    Args:
        target: name of the data set to be segmented.
        related: data sets (IDs or names) of each kind.
        plans_name: of the target's plans.
        configurations: of these plans; None: those that the target is preprocessed for.

    Raises:
        UsageError: something is missing, or a data set does not fit the target; names data set, value and fix.
    """
    plans = load_plans(target, plans_name)
    chosen = _configurations(target, plans, configurations)
    names = [(kind, dataset_name(name)) for kind in related for name in related[kind]]
    seen: dict[str, Kind] = {}
    for kind, name in names:
        if name == target:
            raise UsageError(f"{FLAGS[kind]} {dataset_id(name)}: {name} is the target itself; name another data set")
        if seen.setdefault(name, kind) != kind:
            raise UsageError(f"{name} cannot be both --non-target and --unlabeled; choose one")
    target_json = load_json(preprocessed_folder(target) / "dataset.json")
    datasets = tuple(_read_related(name, kind) for name, kind in seen.items())
    for dataset in datasets:
        _require_same_channels(dataset, target, target_json)
        _require_same_dimensions(dataset, target, plans)
        if dataset.kind == "unlabeled":
            _require_no_leak(dataset, target)
    return RelatedLink(target, plans, chosen, datasets)


def link_related(link: RelatedLink, num_processes: int, quiet: bool) -> LinkedData:
    """Copy plans, preprocess, then write the relations; what is done already is left alone.

    Raises:
        UsageError: a case that cannot be preprocessed; the relations are as they were then.
    """
    folders: dict[str, list[Path]] = {}
    warnings = []
    for dataset in link.datasets:
        write_related_plans(dataset, link.plans)
        folders[dataset.name] = [
            preprocess_related(dataset, link.plans, configuration, num_processes, quiet)
            for configuration in link.configurations
        ]
        if dataset.labelled:
            copy_labels(dataset)
            try:
                extract_fingerprint(dataset, num_processes, quiet)
            except UsageError as error:
                warnings.append(f"{error}; it is linked all the same, but nnUNetv2_train cannot train on it")
    for kind in FLAGS:
        identifiers = [dataset_id(dataset.name) for dataset in link.datasets if dataset.kind == kind]
        if identifiers:
            write_relation(link.target, kind, identifiers)
    return LinkedData(folders, warnings)


def _configurations(target: str, plans: dict[str, Any], asked: Sequence[str] | None) -> tuple[str, ...]:
    """Configurations to preprocess for, one of each data identifier."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    for configuration in asked or ():
        if configuration not in plans["configurations"]:
            raise UsageError(
                f"-c {configuration} is not in the plans of {target}; they have {', '.join(plans['configurations'])}"
            )
    identifiers = {name: manager.get_configuration(name).data_identifier for name in asked or plans["configurations"]}
    if not asked:
        folder = preprocessed_folder(target)
        identifiers = {name: value for name, value in identifiers.items() if (folder / value).is_dir()}
    if not identifiers:
        raise UsageError(
            f"{target} is preprocessed for no configuration of {plans['plans_name']}; run: nnUNetv2_preprocess"
            f" -d {dataset_id(target)} -plans_name {plans['plans_name']} -c {' '.join(plans['configurations'])}"
        )
    first = {identifier: name for name, identifier in reversed(identifiers.items())}
    return tuple(name for name in identifiers if name in first.values())


def _read_related(name: str, kind: Kind) -> RelatedDataset:
    dataset_json = load_json(raw_folder(name) / "dataset.json")
    if is_xray_dataset(dataset_json):
        raise UsageError(f"{FLAGS[kind]}: {name} holds X-rays with image-level labels; link it with --xray")
    dataset = RelatedDataset(name, kind, tuple(raw_cases(name)), dataset_json)
    missing = [case for case in dataset.cases if dataset.labelled and not case.label.is_file()]
    if missing:
        raise UsageError(
            f"{len(missing)} cases of {name} have no label, e.g. {missing[0].label}; labels, or empty masks, tell where"
            " to cut patches of non-target data (images of the target's own kind may go without: --unlabeled)"
        )
    return dataset


def _require_same_channels(dataset: RelatedDataset, target: str, target_json: dict[str, Any]) -> None:
    """nnU-Net normalises by channel, so the same channel must mean the same."""
    theirs, ours = channel_names(dataset.dataset_json), channel_names(target_json)
    if [name.casefold() for name in theirs] != [name.casefold() for name in ours]:
        raise UsageError(
            f"{dataset.name} has the channels {', '.join(theirs)}, but {target} has {', '.join(ours)}; both must have"
            " the same channels in the same order: convert one of them again, or link another data set"
        )


def _require_same_dimensions(dataset: RelatedDataset, target: str, plans: dict[str, Any]) -> None:
    target_is_2d = plans["original_median_shape_after_transp"][0] == 1
    is_2d = _is_2d(dataset.cases[0], dataset.dataset_json)
    if is_2d != target_is_2d:
        theirs, ours = (("3D volumes", "2D images")[flat] for flat in (is_2d, target_is_2d))
        raise UsageError(
            f"{dataset.name} holds {theirs}, but {target} holds {ours}; link {ours}, e.g. slices of the volumes"
        )


def _is_2d(case: RawCase, dataset_json: dict[str, Any]) -> bool:
    """By nnU-Net's own reader, which gives a 2D image a first axis of length 1."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    file = str(case.images[0])
    reader = determine_reader_writer_from_dataset_json(dataset_json, file, verbose=False)
    image, _ = reader().read_images([file])
    return bool(image.shape[1] == 1)


def _require_no_leak(dataset: RelatedDataset, target: str) -> None:
    """A case may not be learnt from without its label in one fold and be validated in the same fold."""
    if (nnunet_folder("nnUNet_raw") / target / "dataset.json").is_file():
        ours = {case.name for case in raw_cases(target)}
    else:  # the raw data may be gone once a data set is preprocessed
        ours = {file.stem for file in preprocessed_folder(target).glob("*/*.pkl")}
    shared = sorted(ours & {case.name for case in dataset.cases})
    if shared:
        raise UsageError(
            f"{len(shared)} cases of the unlabelled {dataset.name} are training cases of {target} too, e.g."
            f" {shared[0]}; they would leak into the validation of a fold: remove or rename them"
        )
