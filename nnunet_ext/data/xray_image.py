"""One X-ray file -> one square 8-bit grey image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nnunet_ext.utilities.errors import UsageError


def read_xray(path: Path, side: int) -> NDArray[np.uint8]:
    """(side, side) uint8 grey values of an 8-bit or 16-bit, grey or colour image.

    The whole image is resized with antialiasing; an oblong one is squeezed into the square, as the authors of UCI do
    for validation, so that nothing of the chest is cut away. 8-bit grey values stay as they are; deeper ones are
    stretched from the image's own [minimum, maximum] to [0, 255], since 10, 12 and 16 bits all come in 16-bit files.

    Raises:
        UsageError: the file is absent, no image, truncated, or holds values that are not finite; names it and why.
    """
    try:
        with Image.open(path) as image:
            image.draft("L", (2 * side, 2 * side))  # a JPEG is decoded at the smallest scale that is large enough
            resized = _grey(image).resize((side, side), Image.Resampling.BILINEAR)
    except Exception as error:  # a broken file makes Pillow's decoders raise anything, struct.error and IndexError too
        raise UsageError(f"{path}: {error}") from None
    grey: NDArray[np.uint8] = np.asarray(resized).round().clip(0, 255).astype(np.uint8)
    return grey


def _grey(image: Image.Image) -> Image.Image:
    """Mode L, or mode F with values from 0 to 255."""
    if image.mode != "F" and not image.mode.startswith("I"):
        return image.convert("L")
    values = np.asarray(image, dtype=np.float32)
    low, high = values.min(), values.max()
    if not np.isfinite(high - low):
        raise ValueError("grey values that are not finite")
    return Image.fromarray((values - low) * (255 / max(high - low, 1e-12)))
