"""Prediction of every case from every subset of its modalities, for the tables of the missing-modality literature."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nnunet_ext.evaluation.subsets import Subsets, all_subsets
from nnunet_ext.inference.modalities import CaseFiles
from nnunet_ext.inference.predictor import ExtensionPredictor
from nnunet_ext.inference.present_channels import PRESENT
from nnunet_ext.inference.trained_model import Fold
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import save_json

MAX_MODALITIES = 6


class SubsetPredictor(ExtensionPredictor):
    """Writes ``OUT/T1+T1ce/CASE.nii.gz`` for every case and every subset of the modalities that it has.

    A case is read and preprocessed once, with all its modalities: what is cropped away, and the mask of a masked
    normalisation, is the same for all its subsets.
    """

    def initialize_from_trained_model_folder(
        self,
        model_training_output_dir: str,
        use_folds: Sequence[Fold] | Fold | None,
        checkpoint_name: str = "checkpoint_final.pth",
    ) -> None:
        """As the parent's; raises UsageError for a model without modalities, or with more than `MAX_MODALITIES`."""
        super().initialize_from_trained_model_folder(model_training_output_dir, use_folds, checkpoint_name)
        self.require_modalities("--all-subsets")
        number = len(self.modalities)
        if number > MAX_MODALITIES:
            raise UsageError(
                f"--all-subsets: {number} modalities have {2**number - 1} subsets; at most {MAX_MODALITIES} modalities"
                f" ({2**MAX_MODALITIES - 1} subsets) are predicted. Choose some with --modalities, one call each"
            )
        self.folders = {subset: subset_folder(list(self.modalities), subset) for subset in all_subsets(number)}
        folds = [use_folds] if isinstance(use_folds, int | str) else use_folds
        self.origin = {
            "folder": str(Path(model_training_output_dir).resolve()),
            "trainer": self.trainer_name,
            "folds": None if folds is None else list(folds),
            "checkpoint": checkpoint_name,
        }

    def _manage_input_and_output_lists(
        self,
        list_of_lists_or_source_folder: str | list[list[str]],
        output_folder_or_list_of_truncated_output_files: Any,
        folder_with_segs_from_prev_stage: str | None = None,
        overwrite: bool = True,
        part_id: int = 0,
        num_parts: int = 1,
        save_probabilities: bool = False,
    ) -> tuple[list[Any], Any, list[str | None]]:
        """As the parent's, without cases of which every subset is predicted; makes the folders below the output's."""
        root = Path(output_folder_or_list_of_truncated_output_files)
        cases, outputs, previous = super()._manage_input_and_output_lists(
            list_of_lists_or_source_folder, str(root), folder_with_segs_from_prev_stage, True, part_id, num_parts
        )
        endings = [self.dataset_json["file_ending"], *([".npz"] if save_probabilities else [])]
        self.wanted = {
            output: [
                (subset, file)
                for subset, file in self._outputs(root, case, output)
                if overwrite or not all(Path(file + ending).is_file() for ending in endings)
            ]
            for case, output in zip(cases, outputs, strict=True)
        }
        self._write_folders(root)
        kept = [i for i, output in enumerate(outputs) if self.wanted[output]]
        return [cases[i] for i in kept], [outputs[i] for i in kept], [previous[i] for i in kept]

    def _outputs(self, root: Path, case: CaseFiles, output: str) -> Iterator[tuple[tuple[int, ...], str]]:
        """Every subset of what a case has, and its truncated file."""
        for subset, folder in self.folders.items():
            if set(subset) <= set(case.modalities):
                yield subset, str(root / folder / Path(output).name)

    def _write_folders(self, root: Path) -> None:
        """Each folder with what nnU-Net puts beside predictions, and ``subsets.json``."""
        for folder in self.folders.values():
            save_json(self.dataset_json, root / folder / "dataset.json")
            save_json(self.plans_manager.plans, root / folder / "plans.json")
        names = list(self.modalities)
        subsets = {folder: [names[i] for i in subset] for subset, folder in self.folders.items()}
        Subsets(names, subsets, self.origin).save(root)

    def _internal_get_data_iterator_from_lists_of_filenames(
        self,
        input_list_of_lists: list[Any],
        seg_from_prev_stage_files: list[str | None],
        output_filenames_truncated: Any,
        num_processes: int,
    ) -> Iterator[dict[str, Any]]:
        """The parent's items, each once per subset; the progress bar counts these."""
        arguments = (input_list_of_lists, seg_from_prev_stage_files, output_filenames_truncated)
        total = sum(len(self.wanted[output]) for output in output_filenames_truncated)
        return self._watched(self._repeated(self._preprocessed(*arguments, num_processes)), total)

    def _repeated(self, cases: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for case in cases:
            for subset, file in self.wanted[case["ofile"]]:
                yield {**case, "ofile": file, "data_properties": {**case["data_properties"], PRESENT: list(subset)}}


def subset_folder(names: Sequence[str], subset: Sequence[int]) -> str:
    """``T1+T1ce``; characters that a folder should not have become ``_``, and names that are then equal (in any case)
    get their number."""
    safe = [re.sub(r"[^\w.-]", "_", name).strip(".") or "modality" for name in names]
    lower = [name.lower() for name in safe]
    return "+".join(f"{safe[i]}_{i}" if lower.count(lower[i]) > 1 else safe[i] for i in subset)
