"""From the network's grid back to that of the image files, for values that are no segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from nnunet_ext.evaluation.segmentation import NATURAL_IMAGE_ENDINGS, TIFF_ENDINGS

PLAIN_ENDINGS = (*NATURAL_IMAGE_ENDINGS, *TIFF_ENDINGS)
"""Of files that know no position, and hold whole numbers where nnU-Net writes them."""


def undo_resampling(
    values: NDArray[Any], properties: dict[str, Any], plans_manager: Any, configuration_manager: Any
) -> NDArray[np.float32]:
    """Resample as nnU-Net does with probabilities.

    Args:
        values: (channels, *spatial) on the network's grid.
        properties: of the case, by nnU-Net's preprocessing.
        plans_manager, configuration_manager: of the model.

    Returns: (channels, *spatial), what preprocessing cropped to, axes as the plans transpose them.
    """
    shape = properties["shape_after_cropping_and_before_resampling"]
    spacing = [properties["spacing"][axis] for axis in plans_manager.transpose_forward]
    planned = list(configuration_manager.spacing)
    planned = planned if len(planned) == len(shape) else [spacing[0], *planned]  # 2D plans leave slices as they are
    resampled = configuration_manager.resampling_fn_probabilities(values.astype(np.float32), shape, planned, spacing)
    return np.asarray(resampled, np.float32)


def undo_cropping(values: NDArray[np.float32], properties: dict[str, Any], plans_manager: Any) -> NDArray[np.float32]:
    """What `undo_resampling` gives -> (channels, z, y, x) as the reader read the images; 0 outside of the crop."""
    image = np.zeros((len(values), *properties["shape_before_cropping"]), np.float32)
    crop = (slice(None), *(slice(low, high) for low, high in properties["bbox_used_for_cropping"]))
    image[crop] = values
    return np.transpose(image, (0, *(axis + 1 for axis in plans_manager.transpose_backward)))


def on_grid_of(file: str, values: NDArray[Any], properties: dict[str, Any]) -> Any:
    """An array as an image on the grid of a file.

    Args:
        file: the image file.
        values: (z, y, x) as nnU-Net's reader reads that file; (1, y, x) of a 2D file.
        properties: by that reader.

    Returns: SimpleITK image with the size, spacing, origin and direction of the file. Of a PNG, BMP or TIFF: at the
        origin, with the spacing that nnU-Net takes for it, and 2D if it has one slice.
    """
    if file.lower().endswith(PLAIN_ENDINGS):
        flat = len(values) == 1
        image = SimpleITK.GetImageFromArray(values[0] if flat else values)
        image.SetSpacing([float(step) for step in properties["spacing"][: 0 if flat else None : -1]])
        return image
    grid = SimpleITK.ReadImage(file)
    orientation = _orientation(grid) if _is_reoriented(properties) else None
    if orientation:
        grid = SimpleITK.DICOMOrient(grid, "RAS")
    image = SimpleITK.GetImageFromArray(values[0] if grid.GetDimension() == 2 else values)
    image.CopyInformation(grid)
    return SimpleITK.DICOMOrient(image, orientation) if orientation else image


def as_seen(image: Any) -> tuple[NDArray[Any], Sequence[float]]:
    """Array and spacing, axes (z, y, x) of the patient (LPS) or (y, x)."""
    seen = SimpleITK.DICOMOrient(image, "LPS") if image.GetDimension() == 3 else image
    return SimpleITK.GetArrayFromImage(seen), seen.GetSpacing()[::-1]


def _is_reoriented(properties: dict[str, Any]) -> bool:
    """Whether nnU-Net's reader is one of those that turn every image to RAS."""
    known = {**properties.get("sitk_stuff", {}), **properties.get("nibabel_stuff", {})}
    return "original_orientation" in known or "reoriented_affine" in known


def _orientation(image: Any) -> str:
    """Such as ``LPS``."""
    found: str = SimpleITK.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(image.GetDirection())
    return found
