"""Reads the cells of a table from a file: CSV with any usual delimiter, Parquet, JSON lines, or an export."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from thaw import parquet
from thaw.data.annotations.annotated import AnnotatedImage, Annotations
from thaw.data.annotations.files import read_annotations
from thaw.data.annotations.places import found_place
from thaw.data.layouts import EXPORT_SUFFIXES, TABLE_SUFFIXES
from thaw.errors import DataError

Converted = TypeVar("Converted")

_DELIMITERS = ",;\t"
_EXCEL_DELIMITER = re.compile(r'"?sep=([^\r\n])"?\s*', re.IGNORECASE)
"""A first line that tells Excel the delimiter, such as `sep=;`."""

_ADVICE = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), "save the sheet as `CSV UTF-8`"),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"), "unpack it, and pass the folder or table in it"),
    ".ndjson": 'name it .jsonl, with one object {"path": …, "label": …} a line',
    ".txt": "write a header such as path,label, and name it .csv",
}


@dataclass(frozen=True)
class RawTable:
    """The cells of a table file, not yet interpreted.

    Attributes:
        file: The file.
        names: The names of all columns, in lower case and without blanks at their ends.
        columns: The cells of those columns that were asked for, by name.
        row_names: The name of each row in messages.
        notes: Remarks on what the file has besides.
    """

    file: Path
    names: Sequence[str]
    columns: Mapping[str, Sequence[Any]]
    row_names: Sequence[str]
    notes: tuple[str, ...] = ()

    def convert(self, name: str, read: Callable[[Any], Converted]) -> list[Converted]:
        """The cells of a column, read by a function that raises `ValueError`; empty where the column is missing.

        Raises:
            DataError: A cell cannot be read; the message names its row.
        """
        values = []
        for cell, place in zip(self.columns.get(name, ()), self.row_names, strict=name in self.columns):
            try:
                values.append(read(cell))
            except ValueError as error:
                raise DataError(f"{self.file}: {place}: {error}") from error
        return values


def read_cells(file: Path, wanted: Collection[str], folder: Path | None = None) -> RawTable:
    """Read some columns of a table file.

    Args:
        file: A file with one of `TABLE_SUFFIXES` or `EXPORT_SUFFIXES`.
        wanted: Names of columns in lower case; those that the table lacks are left out.
        folder: Where the images of an export are looked for; by default the folder of the file.

    Raises:
        DataError: The file is missing, damaged, of another kind, has no rows, or has a wanted column twice.
    """
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet, ".jsonl": _read_json_lines}
    suffix = file.suffix.lower()
    if suffix not in (*readers, *EXPORT_SUFFIXES):
        raise DataError(f"{file}: not a table of labelled images{_advice(suffix)}")
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    try:
        if suffix in EXPORT_SUFFIXES:
            table = _of_annotations(file, read_annotations(file), folder or file.parent)
        else:
            table = readers[suffix](file, wanted)
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text; save it as `CSV UTF-8`") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{file}: cannot be read as {suffix}: {error}") from error
    if not table.row_names:
        raise DataError(f"{file}: the table has no rows")
    return table


def _of_annotations(file: Path, annotations: Annotations, folder: Path) -> RawTable:
    """The images of an export as a table, with the paths that exist in a folder."""
    images = annotations.images
    paths = [found_place(image.places, lambda place: (folder / place).is_file()) for image in images]
    first: dict[str, AnnotatedImage] = {}
    for path, image in zip(paths, images, strict=True):
        other = first.setdefault(path, image)
        if other.places[0] != image.places[0]:
            raise DataError(
                f"{file}: {other.name} ({other.places[0]}) and {image.name} ({image.places[0]}) would both be {path}; "
                "keep both images under the names that the export gives them, or remove one from it"
            )
    columns: dict[str, Sequence[Any]] = {"path": paths, "labels": [list(image.labels) for image in images]}
    if any(image.split for image in images):
        columns["subset"] = [image.split for image in images]
    return RawTable(file, list(columns), columns, [image.name for image in images], annotations.notes)


def _advice(suffix: str) -> str:
    """What is taken instead, and how to get there."""
    advice = f"; {_ADVICE[suffix]}" if suffix in _ADVICE else ""
    exports = f"and {' or '.join(EXPORT_SUFFIXES)} of annotation tools"
    return f"; supported are a folder of images, {', '.join(TABLE_SUFFIXES)}, {exports}{advice}"


def _read_csv(file: Path, wanted: Collection[str]) -> RawTable:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        first = stream.readline()
        if by_excel := _EXCEL_DELIMITER.fullmatch(first):
            delimiter, lines_before = by_excel[1], 1
        else:
            delimiter, lines_before = max(_DELIMITERS, key=first.count), 0
            stream.seek(0)
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        row_names: list[str] = []
        try:
            names = _checked_names(next(reader, []), wanted, file)
            known = [(position, name) for position, name in enumerate(names) if name in wanted]
            columns: dict[str, list[str]] = {name: [] for _, name in known}
            for cells in reader:
                if not any(cells):
                    continue
                row_names.append(f"row {reader.line_num + lines_before}")
                if len(cells) != len(names):
                    raise ValueError(f"{row_names[-1]} has {len(cells)} cells, but the header has {len(names)}")
                for position, name in known:
                    columns[name].append(cells[position])
        except csv.Error as error:
            raise ValueError(f"row {reader.line_num + lines_before}: {error}") from error
    return RawTable(file, names, columns, row_names)


def _read_parquet(file: Path, wanted: Collection[str]) -> RawTable:
    found = pq.read_schema(file).names
    names = _checked_names(found, wanted, file)
    taken = [original for original, name in zip(found, names, strict=True) if name in wanted]
    table = parquet.read_table(file, taken)
    columns = {_name(original): table.column(original).to_pylist() for original in taken}
    return RawTable(file, names, columns, [f"row {number + 1}" for number in range(table.num_rows)])


def _read_json_lines(file: Path, wanted: Collection[str]) -> RawTable:
    rows, row_names = [], []
    with file.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                rows.append(_json_object(line, number))
                row_names.append(f"line {number}")
    originals = list(dict.fromkeys(chain.from_iterable(rows)))
    names = _checked_names(originals, wanted, file)
    columns = {
        name: [row.get(original) for row in rows]
        for original, name in zip(originals, names, strict=True)
        if name in wanted
    }
    return RawTable(file, names, columns, row_names)


def _json_object(line: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number}, character {error.pos + 1}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError(f"line {number}: its objects are nested too deeply") from error
    if not isinstance(row, dict):
        raise ValueError(f'line {number} is not an object such as {{"file_name": …, "label": …}}')
    return row


def _checked_names(originals: Sequence[str], wanted: Collection[str], file: Path) -> list[str]:
    """The names of columns as they are compared; raises `DataError` where two of the wanted ones become the same."""
    names = [_name(original) for original in originals]
    for name, times in Counter(names).items():
        if times > 1 and name in wanted:
            spellings = [original.strip() for original in originals if _name(original) == name]
            raise DataError(f"{file}: has the columns {' and '.join(spellings)}; keep only one")
    return names


def _name(original: str) -> str:
    return original.strip().lower()
