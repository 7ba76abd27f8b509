"""nnU-Net's predictor with safe loading, inputs checked first, whole output files and a progress bar over cases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.configuration import default_num_processes
from nnunetv2.inference.data_iterators import PreprocessAdapter, preprocessing_iterator_fromfiles
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.helpers import empty_cache
from torch import Tensor
from tqdm import tqdm

from nnunet_ext.inference.cases import cases_in_folder, check_existence, check_numbering, check_sizes
from nnunet_ext.inference.export import export_whole_files, no_partial_files_left
from nnunet_ext.inference.modalities import (
    CaseFiles,
    Modalities,
    case_name,
    choose_files,
    choose_modalities,
    incomplete_cases,
    modalities_of,
    numbered_channels,
    selected_modalities,
)
from nnunet_ext.inference.present_channels import PRESENT, PresentChannelsPlans
from nnunet_ext.inference.processes import Task, no_process_left_on_error, run_tasks
from nnunet_ext.inference.prompts import encoded_prompts, selected_prompt
from nnunet_ext.inference.trained_model import Fold, load_trained_model
from nnunet_ext.utilities.errors import UsageError


class ExtensionPredictor(nnUNetPredictor):  # type: ignore[misc]
    """Predicts what nnU-Net's own predictor predicts, voxel for voxel.

    Wherever the host takes a number of processes, 0 means: in this process. A multi-modal model predicts each case from
    the modalities whose files are there, or from those of them that `only_modalities` (``T1ce,FLAIR``) names. A model
    that reads text takes each case's sentence from the file `prompts`, or `prompt` for all.
    """

    def __init__(
        self,
        *args: Any,
        trust_checkpoint: bool = False,
        quiet: bool = False,
        only_modalities: str | None = None,
        prompts: str | None = None,
        prompt: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.trust_checkpoint, self.quiet, self.only_modalities = trust_checkpoint, quiet, only_modalities
        self.prompts, self.prompt = prompts, prompt
        self.modalities: Modalities = {}
        self._rows: dict[str, Tensor] = {}
        self.chosen: tuple[int, ...] = ()

    def initialize_from_trained_model_folder(
        self,
        model_training_output_dir: str,
        use_folds: Sequence[Fold] | Fold | None,
        checkpoint_name: str = "checkpoint_final.pth",
    ) -> None:
        """As the host's, by safe loading; raises UsageError for anything missing."""
        folds = [use_folds] if isinstance(use_folds, int | str) else use_folds
        model = load_trained_model(Path(model_training_output_dir), folds, checkpoint_name, trust=self.trust_checkpoint)
        self.manual_initialization(
            model.network,
            model.plans_manager,
            model.configuration_manager,
            model.parameters,
            model.dataset_json,
            model.trainer_name,
            model.mirroring_axes,
        )
        self.modalities = modalities_of(model.network, model.plans_manager.plans, model.dataset_json)
        self.chosen = tuple(range(len(self.modalities)))
        if self.only_modalities is not None:
            self.require_modalities(f"--modalities {self.only_modalities}")
            self.chosen = choose_modalities(self.only_modalities, self.modalities)

    def require_modalities(self, option: str) -> None:
        """Raises UsageError, naming `option`, for a model that needs all its channels."""
        if not self.modalities:
            raise UsageError(
                f"{option}: a model of {self.trainer_name} needs all channels of every case; only a model of"
                " MAMLTrainer can do without some"
            )

    def predict_from_files_sequential(
        self,
        list_of_lists_or_source_folder: str | list[list[str]],
        output_folder_or_list_of_truncated_output_files: str | list[str] | None,
        save_probabilities: bool = False,
        overwrite: bool = True,
        folder_with_segs_from_prev_stage: str | None = None,
    ) -> Any:
        """`predict_from_files` without any other process."""
        return self.predict_from_files(
            list_of_lists_or_source_folder,
            output_folder_or_list_of_truncated_output_files,
            save_probabilities,
            overwrite,
            0,
            0,
            folder_with_segs_from_prev_stage,
        )

    def predict_from_data_iterator(
        self,
        data_iterator: Iterable[dict[str, Any]],
        save_probabilities: bool = False,
        num_processes_segmentation_export: int = default_num_processes,
    ) -> list[Any]:
        """As the host's, but a file appears whole or not at all, the first export that fails ends the run, and no
        process or temporary file outlives an error or Ctrl-C."""
        outputs: list[str] = []

        def tasks() -> Iterator[Task]:
            for case in data_iterator:
                if case["ofile"] is not None:
                    outputs.append(case["ofile"])
                yield self._predicted(case, save_probabilities)

        with no_process_left_on_error(), no_partial_files_left(outputs):
            results = run_tasks(tasks(), num_processes_segmentation_export)
        compute_gaussian.cache_clear()
        empty_cache(self.device)
        return results

    def _predicted(self, case: dict[str, Any], save_probabilities: bool) -> Task:
        """Predict one case; returns what is to be done with the logits."""
        properties, output = case["data_properties"], case["ofile"]
        present = properties.get(PRESENT) if self.modalities else None
        case_id = "" if output is None else Path(output).name
        with selected_modalities(self.network, present), selected_prompt(self.network, self._rows, case_id):
            # NumPy, because torch tensors that cross processes can fail in ways that cannot be caught (host).
            logits = self.predict_logits_from_preprocessed_data(case["data"]).cpu().numpy()
        managers = self.plans_manager, self.configuration_manager
        if output is None:
            arguments = (logits, *managers, self.label_manager, properties, save_probabilities)
            return convert_predicted_logits_to_segmentation_with_correct_shape, arguments
        return export_whole_files, (logits, properties, *managers[::-1], self.dataset_json, output, save_probabilities)

    def _manage_input_and_output_lists(
        self,
        list_of_lists_or_source_folder: str | list[list[str]],
        output_folder_or_list_of_truncated_output_files: str | list[str] | None,
        folder_with_segs_from_prev_stage: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[list[Any], Any, list[str | None]]:
        """As the host's, once every file that prediction will read is there; `CaseFiles` for a multi-modal model."""
        cases = self._checked_cases(list_of_lists_or_source_folder)
        if self.prompts is not None or self.prompt is not None:
            names = [case_name(files[0], self.dataset_json["file_ending"]) for files in cases]
            self._rows, told = encoded_prompts(
                self.trainer_name, self.plans_manager.plans, names, self.prompts, self.prompt
            )
            print(told)
        cases, outputs, previous = super()._manage_input_and_output_lists(
            cases, output_folder_or_list_of_truncated_output_files, folder_with_segs_from_prev_stage, *args, **kwargs
        )
        absent = [file for file in previous if file is not None and not Path(file).is_file()]
        if absent:
            raise UsageError(f"-prev_stage_predictions lacks {', '.join(absent)}; predict the previous stage first")
        return cases, outputs, previous

    def _checked_cases(self, cases: str | list[list[str]]) -> list[list[str]] | list[CaseFiles]:
        """The files of each case in a folder, or of those listed (place: channel); UsageError if any is unfit."""
        ending = self.dataset_json["file_ending"]
        read_images = self.plans_manager.image_reader_writer_class().read_images
        listed = cases_in_folder(cases, ending) if isinstance(cases, str) else cases
        check_existence(listed)
        if not self.modalities:
            if isinstance(cases, str):
                check_numbering(listed, self.dataset_json, read_images)
            return listed
        by_channel = [
            numbered_channels(files, ending) if isinstance(cases, str) else dict(enumerate(files)) for files in listed
        ]
        found = choose_files(by_channel, self.modalities, self.chosen, ending, read_images)
        check_sizes([case.files for case in found])
        if incomplete := incomplete_cases(found, self.modalities, self.chosen, ending):
            print(incomplete)
        return found

    def _internal_get_data_iterator_from_lists_of_filenames(
        self,
        input_list_of_lists: list[Any],
        seg_from_prev_stage_files: list[str | None],
        output_filenames_truncated: Any,
        num_processes: int,
    ) -> Iterator[dict[str, Any]]:
        """As the host's, with a progress bar."""
        arguments = (input_list_of_lists, seg_from_prev_stage_files, output_filenames_truncated)
        return self._watched(self._preprocessed(*arguments, num_processes), len(input_list_of_lists))

    def _preprocessed(
        self, cases: list[Any], previous: list[str | None], outputs: list[str] | None, num_processes: int
    ) -> Iterable[dict[str, Any]]:
        """The host's items, one per case."""
        plans = PresentChannelsPlans(self.plans_manager.plans) if self.modalities else self.plans_manager
        managers = plans, self.dataset_json, self.configuration_manager
        if not num_processes:
            preprocessor = self.configuration_manager.preprocessor_class(verbose=self.verbose_preprocessing)
            adapter: Iterable[dict[str, Any]] = PreprocessAdapter(cases, previous, preprocessor, outputs, *managers)
            return adapter
        pin_memory, verbose = self.device.type == "cuda", self.verbose_preprocessing
        arguments = (cases, previous, outputs, *managers, num_processes, pin_memory, verbose)
        items: Iterable[dict[str, Any]] = preprocessing_iterator_fromfiles(*arguments)
        return items

    def _watched(self, cases: Iterable[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
        """With a progress bar, and with messages for the user."""
        return _explained(tqdm(cases, "Predicting", total, unit="case", disable=True if self.quiet else None))


def _explained(cases: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same cases; what SimpleITK and the host's workers raise becomes a message for the user."""
    try:
        yield from cases
    except (OSError, RuntimeError) as error:
        raise UsageError(f"a case cannot be read or preprocessed: {error}") from error
