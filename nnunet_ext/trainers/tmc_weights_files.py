"""Files of public weights that parts of TMC start from, read without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_ext.architectures.tmc_swin import SwinStages
from nnunet_ext.architectures.tmc_text import TextStages
from nnunet_ext.architectures.tmc_weights import LoadedWeights, load_bert_weights, load_swin_weights
from nnunet_ext.utilities.checkpoint import load_checkpoint
from nnunet_ext.utilities.errors import UsageError

NAMES = ("model.safetensors", "pytorch_model.bin")
WAY_OUT = "convert the file to safetensors"


def load_vision(swin: SwinStages, path: str) -> LoadedWeights:
    """Copy the setting `swin_weights`, a file or a folder with one of `NAMES`, into `swin`.

    Raises:
        UsageError: no such file, a damaged one, or one that fits nowhere.
    """
    try:
        return load_swin_weights(swin, _read("swin_weights", path))
    except ValueError as error:
        raise UsageError(f"swin_weights={path!r}: {error}") from None


def load_text(text: TextStages, path: str) -> LoadedWeights:
    """As `load_vision`, of the setting `bert_weights`."""
    try:
        return load_bert_weights(text, _read("bert_weights", path))
    except ValueError as error:
        raise UsageError(f"bert_weights={path!r}: {error}") from None


def _read(setting: str, path: str) -> dict[str, Any]:
    found = Path(path)
    if found.is_dir():
        files = [found / name for name in NAMES if (found / name).is_file()]
        if not files:
            raise UsageError(f"{setting}={path!r} holds neither of {', '.join(NAMES)}")
        found = files[0]
    if found.suffix != ".safetensors":
        return load_checkpoint(found, way_out=WAY_OUT)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(found))
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{setting}: {found} cannot be read ({error}); copy it again") from None
