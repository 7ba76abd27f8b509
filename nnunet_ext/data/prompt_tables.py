"""Files of sentences: what they say, row by row, before it is matched to anything."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from nnunet_ext.utilities.errors import UsageError

COLUMNS = ("Image", "Description")
Rows = list[tuple[str, str]]


def read_rows(file: Path) -> Rows:
    """(name, sentence) of every entry, both as they are written; blank rows of tables are left out.

    ``.json``: one object, name -> sentence. ``.csv`` and ``.xlsx`` (first sheet): the columns Image and Description.

    Raises:
        UsageError: absent, of another kind, not UTF-8, a column missing, a row without name, or values that are no
            text; names the file and the fix.
    """
    readers = {".json": _json_rows, ".csv": _csv_rows, ".xlsx": _xlsx_rows}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise UsageError(f"{file}: prompts are read from {', '.join(readers)}; convert the file")
    if not file.is_file():
        raise UsageError(f"{file} does not exist; give the file of the prompts")
    return reader(file)


def _json_rows(file: Path) -> Rows:
    try:
        # Pairs, since a dictionary would hide names that occur twice.
        content = json.loads(_text(file), object_pairs_hook=list)
    except json.JSONDecodeError as error:
        raise UsageError(f"{file} is not valid JSON ({error})") from None
    pairs = content if isinstance(content, list) else [content]
    if not all(isinstance(pair, tuple) and isinstance(pair[1], str) for pair in pairs):
        raise UsageError(f'{file} must be one object of texts: {{"case_1": "sentence", ...}}')
    return pairs


def _csv_rows(file: Path) -> Rows:
    return _table_rows(file, csv.reader(io.StringIO(_text(file), newline="")))


def _xlsx_rows(file: Path) -> Rows:
    try:
        import openpyxl  # type: ignore[import-untyped]
    except ImportError as error:
        raise UsageError(f"{file} needs openpyxl ({error}); run: pip install 'nnunet_ext[text]'") from error
    try:
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
    except (BadZipFile, KeyError, OSError, ValueError) as error:
        raise UsageError(f"{file} is not a readable .xlsx ({error}); save it again, or as CSV in UTF-8") from None
    try:
        return _table_rows(file, book.worksheets[0].iter_rows(values_only=True))
    finally:
        book.close()


def _table_rows(file: Path, table: Iterable[Sequence[Any]]) -> Rows:
    rows = iter(table)
    header = [_cell(value) for value in next(rows, ())]
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise UsageError(
            f"{file} has no column {' and no column '.join(missing)}; its first row is: {', '.join(header) or 'empty'};"
            f" name the columns {' and '.join(COLUMNS)}"
        )
    return list(_named_rows(file, rows, [header.index(column) for column in COLUMNS]))


def _named_rows(file: Path, rows: Iterator[Sequence[Any]], columns: Sequence[int]) -> Iterator[tuple[str, str]]:
    for number, row in enumerate(rows, start=2):
        name, sentence = (_cell(row[column]) if column < len(row) else "" for column in columns)
        if name:
            yield name, sentence
        elif sentence:
            raise UsageError(f"{file}, row {number}: {sentence!r} has no {COLUMNS[0]}; name it or remove the row")


def _cell(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _text(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = content[error.start : error.start + 1]
        raise UsageError(f"{file} is not UTF-8 (line {line}: byte {wrong!r}); save it as UTF-8") from None
