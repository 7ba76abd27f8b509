"""Segmentations that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunetv2.inference.export_prediction import export_prediction_from_logits


def export_whole_files(
    logits: Any,
    properties: dict[str, Any],
    configuration_manager: Any,
    plans_manager: Any,
    dataset_json: dict[str, Any],
    output_file_truncated: str,
    save_probabilities: bool,
) -> None:
    """The host's export into a hidden folder beside the output, whose files are then flushed and renamed. The
    segmentation comes last: where it is, the case is complete."""
    target, folder = Path(output_file_truncated), partial_folder(output_file_truncated)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with no_partial_files_left([output_file_truncated]):
        export_prediction_from_logits(
            logits,
            properties,
            configuration_manager,
            plans_manager,
            dataset_json,
            str(folder / target.name),
            save_probabilities,
        )
        for file in sorted(folder.iterdir(), key=lambda file: file.name.endswith(dataset_json["file_ending"])):
            with file.open("rb+") as content:
                os.fsync(content.fileno())
            file.replace(target.parent / file.name)


def partial_folder(output_file_truncated: str) -> Path:
    """Where the files of one case are while they are being written; a leftover of a killed run is written over."""
    target = Path(output_file_truncated)
    return target.with_name(f".{target.name}.partial")


@contextmanager
def no_partial_files_left(outputs: Sequence[str]) -> Iterator[None]:
    """At the end, with or without an exception, no partial folder of `outputs` (truncated names) is left."""
    try:
        yield
    finally:
        for output in outputs:
            shutil.rmtree(partial_folder(output), ignore_errors=True)
