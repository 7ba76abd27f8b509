"""The gates A_i of modality-aware attention (Zhang et al., MICCAI 2021, Eq. 1) as images, from the forward passes that
give the segmentation too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import SimpleITK
import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from numpy.typing import NDArray
from torch import Tensor, nn

from nnunet_ext.evaluation.attention import AttentionMean, AttentionTable
from nnunet_ext.evaluation.attention_figure import Panel, draw_attention, panels_file
from nnunet_ext.inference.image_grid import PLAIN_ENDINGS, as_seen, on_grid_of, undo_cropping, undo_resampling
from nnunet_ext.inference.modalities import CaseFiles, Modalities, case_name, selected_modalities
from nnunet_ext.inference.predictor import ExtensionPredictor
from nnunet_ext.inference.present_channels import PRESENT, PresentChannelsPlans
from nnunet_ext.inference.processes import Task
from nnunet_ext.inference.subsets import subset_folder
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import atomic_path

LISTED_AT_MOST = 20


class WithGates(nn.Module):
    """A `MAMLNet` whose gates, times `scale`, follow its logits as further channels, so that nnU-Net's sliding window,
    mirroring and mean over folds treat both alike."""

    def __init__(self, network: Any, scale: float) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, *spatial) -> (B, classes + present modalities, *spatial)."""
        logits, gates = self.network(x, return_attention=True)
        return torch.cat([logits, self.scale * gates], 1)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Of the `MAMLNet`."""
        return self.network.load_state_dict(state_dict, *args, **kwargs)

    def select_modalities(self, indices: Sequence[int] | None) -> None:
        """Of the `MAMLNet`."""
        self.network.select_modalities(indices)

    def attends(self, present: Sequence[int]) -> bool:
        """Of the `MAMLNet`."""
        return bool(self.network.attends(present))


def gate_scale(step_size: float) -> float:
    """Power of two by which gates are multiplied while nnU-Net adds up tiles in half precision.

    At the corners of a tile its Gaussian weights are as small as half precision knows, 2^-24, and a gate times such a
    weight is rounded to 0 or 1 of these; with a scale of 512 the error is at most 0.001. The sum over the tiles must
    stay below 65504: of Gaussians (sigma 1/8 tile, height 10) `step_size` tiles apart in three dimensions, or of two
    along each, nearly in one place.
    """
    along_one_axis = max(2.0, 1 + math.sqrt(2 * math.pi) / (8 * step_size))
    return float(2 ** math.floor(math.log2(65504 / (10 * along_one_axis**3))))


class AttentionPredictor(ExtensionPredictor):
    """Writes, instead of the segmentation of each case, the attention map of each modality that it has.

    A case with one modality, which its stream segments without attention, is left out.
    """

    def manual_initialization(
        self,
        network: Any,
        plans_manager: Any,
        configuration_manager: Any,
        parameters: Any,
        dataset_json: dict[str, Any],
        trainer_name: str,
        mirroring_axes: Any,
    ) -> None:
        """As the host's; raises UsageError for a network without attention."""
        require_attention(network, trainer_name)
        self.scale = gate_scale(self.tile_step_size)
        managers = plans_manager, configuration_manager
        super().manual_initialization(
            WithGates(network, self.scale), *managers, parameters, dataset_json, trainer_name, mirroring_axes
        )
        self.num_heads = int(plans_manager.get_label_manager(dataset_json).num_segmentation_heads)
        # All that the host's sliding window asks it for is how many channels to make room for.
        self.label_manager = SimpleNamespace(num_segmentation_heads=self.num_heads)

    def explain(self, images: str, output: Path, num_preprocessing: int = 0, num_export: int = 0) -> AttentionTable:
        """Write ``CASE_attention_NAME.nii.gz`` and ``CASE_attention.png`` for the cases in the folder `images`, and
        ``attention.csv``.

        Args:
            images: as for prediction; any modalities of a case may be absent.
            output: folder, created if absent.
            num_preprocessing, num_export: processes; 0: this one.

        Raises:
            UsageError: images that prediction would refuse, or no case with two modalities.
        """
        cases, outputs, previous = self._manage_input_and_output_lists(images, str(output))
        self.files: dict[str, CaseFiles] = dict(zip(outputs, cases, strict=True))
        output.mkdir(parents=True, exist_ok=True)
        items = self._internal_get_data_iterator_from_lists_of_filenames(cases, previous, outputs, num_preprocessing)
        means = self.predict_from_data_iterator(items, False, num_export)
        table = AttentionTable([mean for of_case in means for mean in of_case])
        table.save(output)
        return table

    def _checked_cases(self, cases: str | list[list[str]]) -> list[list[str]] | list[CaseFiles]:
        """As the parent's, without cases that are segmented without attention."""
        found: list[Any] = super()._checked_cases(cases)
        alone = [case for case in found if not self.network.attends(case.modalities)]
        if not alone:
            return found
        if len(alone) == len(found):
            raise UsageError(
                f"each of the {len(found)} cases has one modality alone, which its stream segments without attention:"
                " there is nothing to show; give two modalities or more"
            )
        ending = self.dataset_json["file_ending"]
        more = f" and {len(alone) - LISTED_AT_MOST} more" if len(alone) > LISTED_AT_MOST else ""
        names = ", ".join(case_name(case[0], ending) for case in alone[:LISTED_AT_MOST])
        print(f"{len(alone)} of {len(found)} cases left out, one modality alone passes no attention: {names}{more}")
        return [case for case in found if case not in alone]

    def _predicted(self, case: dict[str, Any], save_probabilities: bool) -> Task:  # noqa: ARG002  (the parent's)
        """Predict one case; returns what is to be done with logits and gates."""
        properties, output = case["data_properties"], case["ofile"]
        self.label_manager.num_segmentation_heads = self.num_heads + len(properties[PRESENT])
        with selected_modalities(self.network, properties[PRESENT]):
            values = self.predict_logits_from_preprocessed_data(case["data"]).cpu().numpy()
        logits, gates = values[: self.num_heads], values[self.num_heads :] / np.float32(self.scale)
        export = Export(self.plans_manager, self.configuration_manager, self.dataset_json, self.modalities)
        return export, (logits, gates, properties, self.files[output], output)


def require_attention(network: Any, trainer_name: str) -> None:
    """Raises UsageError for a network that has no modality-aware attention."""
    if not hasattr(network, "attends"):
        raise UsageError(
            f"the model was trained by {trainer_name}, which has no modality-aware attention; name a model of"
            " MAMLTrainer (-tr MAMLTrainer, or -m)"
        )
    if network.attention is None:
        raise UsageError(
            f"the model was trained by {trainer_name} with ablation=ensemble, the mean of streams without attention:"
            " there are no maps to show; name a model with another ablation"
        )


@dataclass(frozen=True)
class Export:
    """How the output of a model for one case becomes files; crosses process boundaries."""

    plans_manager: Any
    configuration_manager: Any
    dataset_json: dict[str, Any]
    modalities: Modalities

    def __call__(
        self, logits: NDArray[Any], gates: NDArray[Any], properties: dict[str, Any], files: CaseFiles, output: str
    ) -> list[AttentionMean]:
        """Write the maps and the figure of a case.

        Args:
            logits: (classes, *spatial) on the network's grid.
            gates: (present modalities, *spatial), likewise.
            properties: of preprocessing.
            files: what was read.
            output: folder and name of the case.
        """
        managers = self.plans_manager, self.configuration_manager
        labels = self.plans_manager.get_label_manager(self.dataset_json)
        foreground = (
            convert_predicted_logits_to_segmentation_with_correct_shape(logits, *managers, labels, properties) > 0
        )
        # A sum of tiles in half precision may leave [0, 1] by a rounding.
        gates = undo_resampling(gates, properties, *managers).clip(0, 1)
        maps = undo_cropping(gates, properties, self.plans_manager)
        names = [list(self.modalities)[i] for i in files.modalities]
        images = [on_grid_of(files[0], values, properties) for values in maps]
        for index, image in zip(files.modalities, images, strict=True):
            with atomic_path(self.map_file(output, index)) as temporary:
                SimpleITK.WriteImage(image, str(temporary), useCompression=True)
        self._draw(images, foreground, properties, files, output)
        return [
            AttentionMean(Path(output).name, name, float(gate.mean(dtype=float)), _mean(values[foreground]))
            for name, gate, values in zip(names, gates, maps, strict=True)
        ]

    def map_file(self, output: str, index: int) -> str:
        """Of a modality; float32 needs another format than those of pictures."""
        ending = self.dataset_json["file_ending"]
        ending = ".nii.gz" if ending.lower() in PLAIN_ENDINGS else ending
        return f"{output}_attention_{subset_folder(list(self.modalities), (index,))}{ending}"

    def _draw(
        self,
        maps: Sequence[Any],
        foreground: NDArray[np.bool_],
        properties: dict[str, Any],
        files: CaseFiles,
        output: str,
    ) -> None:
        """A modality of several channels is shown by its first."""
        read = PresentChannelsPlans(self.plans_manager.plans).image_reader_writer_class().read_images(files)[0]
        kinds = self.dataset_json.get("channel_names", self.dataset_json.get("modality", {}))
        mask = on_grid_of(files[0], foreground.astype(np.uint8), properties)
        panels = []
        for index, attention in zip(files.modalities, maps, strict=True):
            name, channels = list(self.modalities.items())[index]
            picture = as_seen(on_grid_of(files[0], read[channels[0]], properties))[0]
            is_ct = str(kinds[str(channels[0])]).lower() == "ct"
            panels.append(Panel(name, picture, as_seen(attention)[0], is_ct))
        shown, spacing = as_seen(mask)
        draw_attention(panels_file(Path(output)), Path(output).name, panels, shown > 0, spacing)


def _mean(values: NDArray[np.float32]) -> float:
    return float(values.mean(dtype=float)) if values.size else float("nan")
