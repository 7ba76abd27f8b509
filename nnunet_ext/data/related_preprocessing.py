"""Preprocess a related data set with the plans of a target, once; a run that was killed is continued.

Every case is made in a folder of its own and moved whole into a hidden folder, which is renamed when all are there: a
preprocessed data set is there or it is not.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_ext.data.related_data import (
    VERSION,
    Kind,
    RawCase,
    load_record,
    missing_cases,
    preprocessing_hash,
    raw_fingerprint,
    record_file,
    related_folder,
    related_name,
)
from nnunet_ext.utilities.datasets import nnunet_folder
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path, load_json, save_json
from nnunet_ext.utilities.parallel import run_parallel


@dataclass(frozen=True)
class RelatedDataset:
    """A data set that a target is to learn from, as it lies in ``nnUNet_raw``.

    Labels of unlabelled data are never opened, even if there are some.
    """

    name: str
    kind: Kind
    cases: tuple[RawCase, ...]
    dataset_json: dict[str, Any]

    @property
    def labelled(self) -> bool:
        """Whether its labels are read: they decide, no more, where patches are cut."""
        return self.kind == "non_target"


def write_related_plans(dataset: RelatedDataset, plans: dict[str, Any]) -> Path:
    """Copy ``dataset.json`` and the target's plans into the data set's folder, under names that tell the target.

    The copy is an ordinary plans file: ``nnUNetv2_train 301 3d_fullres all -p nnUNetPlans_of_201`` trains with it.
    """
    folder = nnunet_folder("nnUNet_preprocessed") / dataset.name
    copy = related_plans(dataset, plans)
    path = folder / f"{copy['plans_name']}.json"
    for content, file in ((copy, path), (dataset.dataset_json, folder / "dataset.json")):
        if not file.is_file() or load_json(file) != content:
            save_json(content, file)
    return path


def related_plans(dataset: RelatedDataset, plans: dict[str, Any]) -> dict[str, Any]:
    """The target's plans for another data set: its name, its reader, and data identifiers that name the target."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    reader = determine_reader_writer_from_dataset_json(
        dataset.dataset_json, str(dataset.cases[0].images[0]), verbose=False
    )
    target = plans["dataset_name"]
    configurations = {
        name: {**configuration, "data_identifier": related_name(configuration["data_identifier"], target)}
        if "data_identifier" in configuration
        else configuration
        for name, configuration in plans["configurations"].items()
    }
    return {
        **{key: value for key, value in plans.items() if key != "nnunet_ext"},  # settings are the target's own
        "dataset_name": dataset.name,
        "plans_name": related_name(plans["plans_name"], target),
        "image_reader_writer": reader.__name__,
        "configurations": configurations,
    }


def preprocess_related(
    dataset: RelatedDataset, plans: dict[str, Any], configuration: str, num_processes: int, quiet: bool
) -> Path:
    """Preprocess all cases as `configuration` of the target's `plans` wants it, unless that is done.

    Returns: the folder.

    Raises:
        UsageError: a case that nnU-Net cannot preprocess, or a worker died. Finished cases are kept for the next call.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans).get_configuration(configuration)
    final = related_folder(dataset.name, manager.data_identifier, plans["dataset_name"])
    record: dict[str, Any] = {
        "version": VERSION,
        "kind": dataset.kind,
        "preprocessing": preprocessing_hash(plans, manager.configuration),
        "raw": raw_fingerprint(dataset.cases, dataset.labelled),
        "cases": [case.name for case in dataset.cases],
    }
    if load_record(final) == record and not missing_cases(final, record):
        return final
    work = final.with_name(f".{final.name}.{dataset.kind}.{record['preprocessing'][:12]}{record['raw'][:12]}")
    for leftover in final.parent.glob(f".{final.name}.*"):
        if leftover != work:
            shutil.rmtree(leftover, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    copy = related_plans(dataset, plans)
    open_cases = [case for case in dataset.cases if not (work / f"{case.name}.pkl").is_file()]
    items = [(dataset, case, copy, configuration, work) for case in open_cases]
    run_parallel(_preprocess_case, items, num_processes, f"{dataset.name} {configuration}", quiet)
    record_file(final).unlink(missing_ok=True)
    shutil.rmtree(final, ignore_errors=True)
    work.rename(final)
    save_json(record, record_file(final))
    return final


def _preprocess_case(
    dataset: RelatedDataset, case: RawCase, plans: dict[str, Any], configuration: str, folder: Path
) -> None:
    """Write the files of one case into `folder`, the one that stands for the whole case last."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    configuration_manager = manager.get_configuration(configuration)
    partial = folder / f".{case.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    preprocessor = configuration_manager.preprocessor_class(verbose=False)
    try:
        preprocessor.run_case_save(
            str(partial / case.name),
            [str(image) for image in case.images],
            str(case.label) if dataset.labelled else None,
            manager,
            configuration_manager,
            dataset.dataset_json,
        )
    except Exception as error:
        raise UsageError(f"case {case.name} of {dataset.name} cannot be preprocessed: {error!r}") from error
    for file in sorted(partial.iterdir(), key=lambda file: file.suffix == ".pkl"):
        file.replace(folder / file.name)
    partial.rmdir()


def extract_fingerprint(dataset: RelatedDataset, num_processes: int, quiet: bool) -> None:
    """nnU-Net's fingerprint of the data set, unless there is one: a training on this data set asks for it.

    Raises:
        UsageError: nnU-Net fails, e.g. since no case has any foreground. Streams do without a fingerprint.
    """
    import io
    from contextlib import nullcontext, redirect_stdout

    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    try:
        load_json(nnunet_folder("nnUNet_preprocessed") / dataset.name / "dataset_fingerprint.json")
        return
    except UsageError:  # absent, or half-written: nnU-Net writes it in place
        pass
    with redirect_stdout(io.StringIO()) if quiet else nullcontext():
        try:
            extractor = DatasetFingerprintExtractor(dataset.name, num_processes)
            extractor.show_progress_bar = not quiet
            extractor.run(overwrite_existing=True)
        except Exception as error:  # nnU-Net's own, of any kind
            raise UsageError(
                f"nnU-Net cannot extract the fingerprint of {dataset.name} ({error!r}; has it any foreground?)"
            ) from error


def copy_labels(dataset: RelatedDataset) -> None:
    """Copy the labels to ``gt_segmentations``, where the validation of a training on this data set looks for them."""
    folder = nnunet_folder("nnUNet_preprocessed") / dataset.name / "gt_segmentations"
    for case in dataset.cases:
        copy = folder / f"{case.name}{dataset.dataset_json['file_ending']}"
        if not copy.is_file() or copy.stat().st_mtime < case.label.stat().st_mtime:
            with atomic_path(copy) as temporary:
                shutil.copy2(case.label, temporary)
