"""Reads tables of labelled images: CSV, Parquet, JSON lines, and metadata files of image folders of the Hub.

A table has a column `path` (or the Hub's `file_name`), relative to the table's folder or absolute, and a column `label`
or `labels`; it may have `split` and `group`. Several labels of an image are a list, or text separated by `|`; an empty
cell means no label. Whether the files exist is checked when they are decoded.
"""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from thaw import parquet
from thaw.data.layouts import TABLE_SUFFIXES, Rows, metadata_files
from thaw.data.manifest import SCHEMA, new_table
from thaw.data.split_names import SPLIT_WORDS
from thaw.errors import DataError

_PATH_NAMES, _LABEL_NAMES = ("path", "file_name"), ("label", "labels")
_KNOWN = (*_PATH_NAMES, *_LABEL_NAMES, "split", "group")
_COMMON_ALTERNATIVES = {
    "path": ("file", "filename", "filepath", "image", "image_path", "img"),
    "label": ("class", "category", "target", "y"),
}
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class _Raw:
    """The cells of the known columns, the names of all columns, and the name of each row in messages."""

    columns: Mapping[str, Sequence[Any]]
    names: Sequence[str]
    row_names: Sequence[str]


def read_table(file: Path) -> Rows:
    """The rows of a table in order; raises `DataError` that names the file and the row or column."""
    raw = _read(file)
    if not raw.row_names:
        raise DataError(f"{file}: the table has no rows")
    paths = [
        _path(cell, file, place)
        for cell, place in zip(raw.columns[_column(raw, _PATH_NAMES, file)], raw.row_names, strict=True)
    ]
    labels = [_labels(cell) for cell in raw.columns[_column(raw, _LABEL_NAMES, file)]]
    _check_contradictions(paths, labels, file, raw.row_names)
    splits = _splits(raw, file)
    groups = [_text(cell) or None for cell in raw.columns["group"]] if "group" in raw.columns else None
    return Rows(new_table(paths, labels, splits, groups), file.parent, file, raw.row_names)


def read_metadata(root: Path) -> Rows | None:
    """The rows of the Hub metadata files in a folder or in its split folders; `None` if there are none.

    Without a column `split`, the split is the folder of the metadata file, or for a file in the root the first folder
    of each path.
    """
    files = metadata_files(root)
    if not files:
        return None
    folders = [file.parent for file, _ in files]
    if len(set(folders)) < len(folders):
        names = ", ".join(file.relative_to(root).as_posix() for file, _ in files)
        raise DataError(f"{root}: several metadata files for the same images ({names}); keep only one")
    parts = [_below(read_table(file), root, split) for file, split in files]
    row_names = list(chain.from_iterable(part.row_names for part in parts))
    return Rows(pa.concat_tables([part.table for part in parts]).combine_chunks(), root, root, row_names)


def _below(rows: Rows, root: Path, split: str | None) -> Rows:
    """Rows of one metadata file with paths relative to the root, and the split that the folders define."""
    table = rows.table
    paths = [
        path if Path(path).is_absolute() else (rows.root / path).relative_to(root).as_posix()
        for path in table.column("path").to_pylist()
    ]
    table = table.set_column(SCHEMA.get_field_index("path"), SCHEMA.field("path"), pa.array(paths))
    if table.column("split").null_count:
        firsts = [split or SPLIT_WORDS.get(path.partition("/")[0].lower()) for path in paths]
        if all(firsts):
            position, field = SCHEMA.get_field_index("split"), SCHEMA.field("split")
            table = table.set_column(position, field, pa.array(firsts))
    row_names = [f"{rows.source.name} {place}" for place in rows.row_names]
    return replace(rows, table=table, row_names=row_names)


def _read(file: Path) -> _Raw:
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".jsonl": _read_json_lines}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise DataError(f"{file}: not a table of labelled images; supported are {', '.join(TABLE_SUFFIXES)}")
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    try:
        return reader(file)
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text; save it as `CSV UTF-8`") from error
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise DataError(f"{file}: cannot be read as {file.suffix}: {error}") from error


def _read_csv(file: Path) -> _Raw:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        header = stream.readline()
        stream.seek(0)
        reader = csv.reader(stream, delimiter=max(_DELIMITERS, key=header.count), strict=True)
        names = [name.strip().lower() for name in next(reader, [])]
        known = [(position, name) for position, name in enumerate(names) if name in _KNOWN]
        columns: dict[str, list[str]] = {name: [] for _, name in known}
        row_names = []
        for cells in reader:
            if not any(cells):
                continue
            if len(cells) != len(names):
                raise ValueError(f"row {reader.line_num} has {len(cells)} cells, but the header has {len(names)}")
            for position, name in known:
                columns[name].append(cells[position])
            row_names.append(f"row {reader.line_num}")
    return _Raw(columns, names, row_names)


def _read_parquet(file: Path) -> _Raw:
    names = pq.read_schema(file).names
    table = parquet.read_table(file, columns=[name for name in names if name in _KNOWN])
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    return _Raw(columns, names, [f"row {number + 1}" for number in range(table.num_rows)])


def _read_json_lines(file: Path) -> _Raw:
    rows, row_names = [], []
    with file.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f'line {number} is not an object such as {{"file_name": …, "label": …}}')
            rows.append(row)
            row_names.append(f"line {number}")
    names = list(dict.fromkeys(chain.from_iterable(rows)))
    return _Raw({name: [row.get(name) for row in rows] for name in names if name in _KNOWN}, names, row_names)


def _column(raw: _Raw, wanted: tuple[str, str], file: Path) -> str:
    """The name under which a table has a required column."""
    present = [name for name in raw.names if name in wanted]
    if len(present) == 1:
        return present[0]
    if present:
        raise DataError(f"{file}: has the columns {' and '.join(present)}; keep only one")
    near = [name for name in raw.names if name.lower() in _COMMON_ALTERNATIVES[wanted[0]]]
    near = near or difflib.get_close_matches(wanted[0], raw.names, n=1)
    hint = f"; did you mean {near[0]!r}? rename it to {wanted[0]!r}" if near else ""
    raise DataError(f"{file}: has no column {wanted[0]!r}, only {', '.join(raw.names) or 'none'}{hint}")


def _path(cell: Any, file: Path, place: str) -> str:
    if not isinstance(cell, str) or not cell.strip():
        raise DataError(f"{file}: {place}: the path is empty")
    return Path(cell.strip()).as_posix()


def _labels(cell: Any) -> list[str]:
    """The distinct labels in a cell, in order."""
    pieces = cell if isinstance(cell, list | tuple) else _text(cell).split("|")
    return list(dict.fromkeys(filter(None, (_text(piece) for piece in pieces))))


def _text(cell: Any) -> str:
    """A cell as text; pandas writes integers in a column with empty cells as 1.0 and NaN."""
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell).strip()


def _splits(raw: _Raw, file: Path) -> list[str] | None:
    """The split of each row, or `None` if the table has none."""
    words = [_text(cell).lower() for cell in raw.columns.get("split", ())]
    if not any(words):
        return None
    for word, place in zip(words, raw.row_names, strict=True):
        if not word:
            raise DataError(f"{file}: {place}: has no split, although other rows have one; fill in all or none")
        if word not in SPLIT_WORDS:
            raise DataError(f"{file}: {place}: unknown split {word!r}; known are {', '.join(SPLIT_WORDS)}")
    return [SPLIT_WORDS[word] for word in words]


def _check_contradictions(
    paths: Iterable[str], labels: Iterable[list[str]], file: Path, row_names: Iterable[str]
) -> None:
    first: dict[str, tuple[list[str], str]] = {}
    for path, names, place in zip(paths, labels, row_names, strict=True):
        known, where = first.setdefault(path, (names, place))
        if set(known) != set(names):
            raise DataError(
                f"{file}: {where} and {place}: {path} has conflicting labels, {'|'.join(known) or 'none'} and "
                f"{'|'.join(names) or 'none'}; keep one row per image, with several labels separated by |"
            )
