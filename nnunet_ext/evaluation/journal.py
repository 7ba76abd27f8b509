"""Finished cases of an evaluation that is still running, so that one that was killed goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_ext.utilities.errors import UsageError

JOURNAL_NAME = ".evaluation_unfinished.jsonl"


class Journal:
    """A file with one JSON line per finished case, under a key that tells all that its rows depend on.

    Lines are appended and flushed one by one; one that a crash cut short is passed over, as is anything with another
    key (other settings, or files that have changed since).
    """

    def __init__(self, folder: Path) -> None:
        """Read what an earlier run left in `folder`, which is made if it is absent.

        Raises:
            UsageError: nothing can be written there.
        """
        self.path = folder / JOURNAL_NAME
        self.finished: dict[str, list[dict[str, Any]]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        except OSError as error:
            raise UsageError(f"{folder} cannot be written to ({error.strerror}); choose another folder: -o") from None
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                self.finished[entry["key"]] = entry["rows"]
            except (ValueError, TypeError, KeyError):
                continue

    def add(self, key: str, rows: list[dict[str, Any]]) -> None:
        """Keep the rows of a finished case.

        Raises:
            UsageError: the disk is full, or the folder has gone.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps({"key": key, "rows": rows}))  # a line of its own, whatever stands before
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be written ({error.strerror}); make room and run the same command again:"
                " it goes on with the cases that are left"
            ) from None


def remove_journal(folder: Path) -> None:
    """The evaluation is complete and its results are saved."""
    (folder / JOURNAL_NAME).unlink(missing_ok=True)


def journal_key(settings: Any, files: Sequence[Path | None]) -> str:
    """Hash of JSON-like `settings` and of the name, size and time of `files`."""
    stats = [None if file is None else (str(file.resolve()), *_size_and_time(file)) for file in files]
    return hashlib.sha256(json.dumps([settings, stats], sort_keys=True).encode()).hexdigest()


def _size_and_time(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns
