"""nnU-Net's predictor with safe loading, inputs checked first, whole output files and a progress bar over cases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nnunetv2.configuration import default_num_processes
from nnunetv2.inference.data_iterators import PreprocessAdapter
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.helpers import empty_cache
from tqdm import tqdm

from nnunet_ext.inference.cases import cases_in_folder, check_existence, check_numbering
from nnunet_ext.inference.export import export_whole_files, no_partial_files_left
from nnunet_ext.inference.processes import Task, no_process_left_on_error, run_tasks
from nnunet_ext.inference.trained_model import Fold, load_trained_model
from nnunet_ext.utilities.errors import UsageError


class ExtensionPredictor(nnUNetPredictor):  # type: ignore[misc]
    """Predicts what nnU-Net's own predictor predicts, voxel for voxel.

    Wherever the host takes a number of processes, 0 means: in this process.
    """

    def __init__(self, *args: Any, trust_checkpoint: bool = False, quiet: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trust_checkpoint, self.quiet = trust_checkpoint, quiet

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
        # NumPy, because torch tensors that cross processes can fail in ways that cannot be caught (host).
        logits = self.predict_logits_from_preprocessed_data(case["data"]).cpu().numpy()
        properties, output = case["data_properties"], case["ofile"]
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
    ) -> tuple[list[list[str]], list[str] | None, list[str | None]]:
        """As the host's, once every file that prediction will read is there."""
        cases = list_of_lists_or_source_folder
        if isinstance(cases, str):
            cases = cases_in_folder(cases, self.dataset_json["file_ending"])
            check_numbering(cases, self.dataset_json, self.plans_manager.image_reader_writer_class().read_images)
        check_existence(cases)
        cases, outputs, previous = super()._manage_input_and_output_lists(
            cases, output_folder_or_list_of_truncated_output_files, folder_with_segs_from_prev_stage, *args, **kwargs
        )
        absent = [file for file in previous if file is not None and not Path(file).is_file()]
        if absent:
            raise UsageError(f"-prev_stage_predictions lacks {', '.join(absent)}; predict the previous stage first")
        return cases, outputs, previous

    def _internal_get_data_iterator_from_lists_of_filenames(
        self,
        input_list_of_lists: list[list[str]],
        seg_from_prev_stage_files: list[str | None],
        output_filenames_truncated: list[str] | None,
        num_processes: int,
    ) -> Iterator[dict[str, Any]]:
        """As the host's, with a progress bar."""
        arguments = (input_list_of_lists, seg_from_prev_stage_files, output_filenames_truncated)
        if num_processes:
            cases = super()._internal_get_data_iterator_from_lists_of_filenames(*arguments, num_processes)
        else:
            preprocessor = self.configuration_manager.preprocessor_class(verbose=self.verbose_preprocessing)
            managers = self.plans_manager, self.dataset_json, self.configuration_manager
            cases = PreprocessAdapter(*arguments[:2], preprocessor, arguments[2], *managers)
        total = len(input_list_of_lists)
        return _explained(tqdm(cases, "Predicting", total, unit="case", disable=True if self.quiet else None))


def _explained(cases: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same cases; what SimpleITK and the host's workers raise becomes a message for the user."""
    try:
        yield from cases
    except (OSError, RuntimeError) as error:
        raise UsageError(f"a case cannot be read or preprocessed: {error}") from error
