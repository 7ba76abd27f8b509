"""``run.json``: by which command, versions and data a run came about; for the report and for whoever repeats it."""

from __future__ import annotations

import hashlib
import platform
import shlex
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnunet_ext import __version__
from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.files import load_json, save_json

RECORD_NAME = "run.json"
DESCRIBING_FILES = ("dataset.json", "dataset_fingerprint.json", "splits_final.json")


def write_run_record(fold_folder: Path, preprocessed: Path, data_folder: Path, continued: bool) -> None:
    """Write ``run.json`` at the start of a run; a continued one keeps its first start and counts how often."""
    path = fold_folder / RECORD_NAME
    now = {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": {
            "python": platform.python_version(),
            "torch": version("torch"),
            "nnunetv2": version("nnunetv2"),
            "nnunet_ext": __version__,
        },
        "data_hash": data_hash(preprocessed, data_folder),
    }
    save_json({**now, **_history(path, continued)}, path)


def _history(path: Path, continued: bool) -> dict[str, Any]:
    """When the run first started (unknown for a run whose record is lost), and how often it was continued."""
    if not continued:
        return {"started": datetime.now().isoformat(timespec="seconds"), "continued": 0}
    try:
        before = load_json(path)
        return {"started": before["started"], "continued": before["continued"] + 1}
    except (UsageError, KeyError, TypeError):
        return {"started": None, "continued": 1}


def data_hash(preprocessed: Path, data_folder: Path) -> str:
    """SHA-256 of what nnU-Net knows of a data set (labels, channels, relations; shapes, spacings and intensities of
    every case; folds), and of the names and sizes of the preprocessed files. Not of their content, which may be
    terabytes."""
    digest = hashlib.sha256()
    for file in (preprocessed / name for name in DESCRIBING_FILES):
        digest.update(f"{file.name}\0".encode() + (file.read_bytes() if file.is_file() else b"") + b"\0")
    for file in sorted(data_folder.iterdir()):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
    return digest.hexdigest()
