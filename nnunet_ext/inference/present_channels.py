"""Reading a case of which some channels are absent, through nnU-Net's own preprocessing.

nnU-Net reads a list of files whose place is their channel. Here the channels that a case has are put in their places,
so that each gets its own normalisation; the others are zeros, which the network never looks at. What is cropped away,
and the mask of a masked normalisation, is where all channels that were read are zero.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

from nnunet_ext.inference.modalities import CaseFiles

PRESENT = "present_modalities"
"""Key of a case's properties: the modalities that it is predicted from, as positions in the network's streams."""


class PresentChannelsReader:
    """One of nnU-Net's readers, for `CaseFiles` instead of lists of files."""

    def __init__(self, reader: Any) -> None:
        self.reader = reader()

    def read_images(self, case: CaseFiles) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """All channels (channels, z, y, x), absent ones zero, and the properties with `PRESENT`.

        Raises:
            RuntimeError: the files cannot be read, or do not fit together.
        """
        names = ", ".join(Path(file).name for file in case.files)
        try:
            found, properties = self.reader.read_images(case.files)
        except RuntimeError as error:
            raise RuntimeError(f"{names}: {str(error) or 'sizes or spacings differ'}") from error
        if len(case.files) == 1 and len(found) == case.num_channels:
            found = found[list(case.channels)]
        if len(found) != len(case.channels):
            raise RuntimeError(f"{names}: {len(found)} channels where {len(case.channels)} are expected")
        images = np.zeros((case.num_channels, *found.shape[1:]), found.dtype)
        images[list(case.channels)] = found
        return images, {**properties, PRESENT: list(case.modalities)}

    def read_seg(self, file: str) -> Any:
        """As the host's."""
        return self.reader.read_seg(file)


class PresentChannelsPlans(PlansManager):  # type: ignore[misc]
    """Plans whose reader is a `PresentChannelsReader`; crosses process boundaries."""

    @property
    def image_reader_writer_class(self) -> Any:
        """What makes the reader."""
        return partial(PresentChannelsReader, super().image_reader_writer_class)
