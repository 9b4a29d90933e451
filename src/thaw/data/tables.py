"""Reads tables of labelled images: CSV, Parquet, JSON lines, metadata files of image folders of the Hub, and exports.

A table has a column `path` (or the Hub's `file_name`), relative to the table's folder or absolute, and a column `label`
or `labels`; it may have `split` and `group`. Several labels of an image are a list, or text separated by `|`; an empty
cell means no label. Exports of annotation tools are read as such a table, with the images that have a label. Whether
the images can be read is found when they are decoded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pyarrow as pa

from thaw.data.layouts import Rows, metadata_files
from thaw.data.manifest import SCHEMA, new_table
from thaw.data.split_names import spelling_note, splits_of
from thaw.data.table_cells import SEPARATOR, labels_of, path_of, text_of
from thaw.data.table_columns import KNOWN, columns_of, split_words
from thaw.data.table_files import RawTable, read_cells
from thaw.data.table_paths import Folders, below_one_folder
from thaw.data.walk import Omitted, images_below, natural_key, printable
from thaw.errors import DataError
from thaw.formats import count, listed
from thaw.progress import Bar
from thaw.remote import SILENT, mirrored_files

_MISSING_VALUES = frozenset({"nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nil"})
_JOINTS = re.compile(r"\s*[,;+&/]\s*|\s+")


def read_table(file: Path, classes: Sequence[str] = (), bar: Bar = SILENT) -> Rows:
    """The rows of a table in order, with the images next to them that are not in it as a remark.

    Args:
        file: The table; files on remote storage that it names are mirrored.
        classes: Classes of an existing classifier, which keep their spelling: `1.0` where one is called so, not `1`.
        bar: Shows the progress of downloads.

    Raises:
        DataError: The table cannot be used; the message names the file and the row or column.
    """
    rows, folders = _read(read_cells(file, KNOWN), classes, file.parent, bar)
    return _with_unlisted(rows, folders.images_next_to(rows.table.column("path").to_pylist()))


def read_labels(file: Path, folder: Path) -> Rows:
    """The rows of a table in order, with paths relative to a folder, of whose images others may have no label yet.

    Raises:
        DataError: The table cannot be used; the message names the file and the row or column.
    """
    return _read(read_cells(file, KNOWN, folder), (), folder)[0]


def read_metadata(root: Path, classes: Sequence[str] = ()) -> Rows | None:
    """The rows of the Hub metadata files in a folder or in its split folders; `None` if there are none.

    Without a split in the file, it is the folder of the metadata file, or for a file in the root the first folder of
    each path.
    """
    files = metadata_files(root)
    if not files:
        return None
    folders = [file.parent for file, _ in files]
    if len(set(folders)) < len(folders):
        names = ", ".join(file.relative_to(root).as_posix() for file, _ in files)
        raise DataError(f"{root}: several metadata files for the same images ({names}); keep only one")
    tables = [read_cells(file, KNOWN) for file, _ in files]
    words = list(chain.from_iterable(map(split_words, tables)))
    parts = [
        _below(_read(raw, classes, folder, words=words)[0], root, split)
        for raw, folder, (_, split) in zip(tables, folders, files, strict=True)
    ]
    row_names = list(chain.from_iterable(part.row_names for part in parts))
    notes = tuple(dict.fromkeys(chain.from_iterable(part.notes for part in parts)))
    rows = Rows(pa.concat_tables([part.table for part in parts]).combine_chunks(), root, root, row_names, notes=notes)
    return _with_unlisted(rows, _images_below(root))


def _read(
    raw: RawTable, classes: Sequence[str], root: Path, bar: Bar | None = None, words: Iterable[str] = ()
) -> tuple[Rows, Folders]:
    """The rows of one file, and the folders that its paths, relative to `root`, name.

    With a `bar`, files on remote storage are mirrored; `words` are the names of splits in files that belong to it.
    """
    file, columns = raw.file, columns_of(raw, words)
    root, named = below_one_folder(file, root, raw.convert(columns.path, path_of))
    if bar:
        mirrored_files((root / path for path in named), bar)
    folders = Folders(root)
    paths, spelled = folders.matched(named)
    # What a cell `1` or `1.0` is called in an existing classifier.
    known = {text_of(name): name for name in classes}
    labels = [
        [known.get(name, name) for name in names]
        for names in raw.convert(columns.label, lambda cell: labels_of(cell, columns.label == "labels"))
    ]
    rows = Rows(
        table=new_table(paths, labels, columns.splits, columns.groups),
        root=root,
        source=file,
        row_names=raw.row_names,
        notes=tuple(f"{file.name}: {note}" for note in (*raw.notes, *columns.notes, *spelled, *_remarks(labels))),
    )
    _check_contradictions(rows, labels)
    return rows, folders


def _images_below(root: Path) -> list[str]:
    """The images in a folder; none where it cannot be listed, which matters only for images that are in the table."""
    try:
        return [str(root / path) for path in images_below(root, Omitted())]
    except DataError:
        return []


def _below(rows: Rows, root: Path, split: str | None) -> Rows:
    """Rows of one metadata file with paths relative to the root, and the split that the folders define."""
    if not rows.root.is_relative_to(root):
        raise DataError(f"{rows.source}: names files on storage outside of this folder; pass this table instead of it")
    table = rows.table
    paths = [
        path if Path(path).is_absolute() else (rows.root / path).relative_to(root).as_posix()
        for path in table.column("path").to_pylist()
    ]
    table = table.set_column(SCHEMA.get_field_index("path"), SCHEMA.field("path"), pa.array(paths))
    notes = rows.notes
    if table.column("split").null_count:
        firsts = [path.partition("/")[0] for path in paths]
        folders = {rows.source.parent.name: split} if split else splits_of(dict.fromkeys(firsts))
        splits = [split or folders.get(first) for first in firsts]
        if {*splits} > {"train", None}:
            missing = splits.index(None)
            raise DataError(
                f"{rows.source}: {rows.row_names[missing]}: {paths[missing]} is outside of the folders of the splits, "
                f"{listed(sorted(set(folders)))}; move it into one of them, or add a column split"
            )
        if all(splits):
            position, field = SCHEMA.get_field_index("split"), SCHEMA.field("split")
            table = table.set_column(position, field, pa.array(splits))
            notes = (*notes, *spelling_note(folders, "folders"))
    row_names = [f"{rows.source.name} {place}" for place in rows.row_names]
    return replace(rows, table=table, row_names=row_names, notes=notes)


def _check_contradictions(rows: Rows, labels: Sequence[Sequence[str]]) -> None:
    """Raise `DataError` for an image, however its path is spelled, that two rows label differently."""
    first: dict[str, tuple[Sequence[str], str]] = {}
    for path, names, place in zip(rows.table.column("path").to_pylist(), labels, rows.row_names, strict=True):
        known, where = first.setdefault(_identity(rows.root, path), (names, place))
        if set(known) != set(names):
            raise DataError(
                f"{rows.source}: {where} and {place}: {path} has conflicting labels, {SEPARATOR.join(known) or 'none'} "
                f"and {SEPARATOR.join(names) or 'none'}; keep one row per image, with several labels separated by "
                f"{SEPARATOR}"
            )


def _remarks(labels: Iterable[Sequence[str]]) -> list[str]:
    """Remarks on classes that are probably not meant as such."""
    classes = set(chain.from_iterable(labels))
    notes = []
    if missing := sorted(name for name in classes if name.casefold() in _MISSING_VALUES):
        notes.append(f"{listed(missing)} is a class; leave the cell empty where it means that there is no label")
    for name in sorted(classes):
        pieces = [piece for piece in _JOINTS.split(name) if piece]
        if len(pieces) > 1 and classes.issuperset(pieces):
            notes.append(f"{name!r} is one class, although {listed(pieces)} are too; separate labels by {SEPARATOR}")
            break
    return notes


def _with_unlisted(rows: Rows, images: Iterable[str]) -> Rows:
    """The rows with a remark on those of some images that are not among them."""
    used = {_identity(rows.root, path) for path in rows.table.column("path").to_pylist()}
    unused = {name: image for image in images if (name := _identity(rows.root, image)) not in used}
    if not unused:
        return rows
    example = printable(_seen_from(rows.root, unused[min(unused, key=natural_key)]))
    where = "the folder" if rows.source == rows.root else "the same folders"
    found = f"{len(unused):,} of {count(len(used) + len(unused), 'image')} in {where}"
    note = f"{rows.source.name}: {found} are not listed and not used, for example {example}"
    return replace(rows, notes=(*rows.notes, note))


def _seen_from(root: Path, path: str) -> str:
    """A path relative to a folder; as it is where it lies on another drive of Windows."""
    try:
        return os.path.relpath(root / path, root)
    except ValueError:
        return path


def _identity(root: Path, path: str) -> str:
    """Equal for spellings of the same path, of which Windows also takes those in other cases."""
    return os.path.normcase(os.path.normpath(root / path))
