"""A folder of images to label, and the table with the labels of some of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thaw.data.class_names import unify
from thaw.data.layouts import Rows
from thaw.data.manifest import Manifest, new_table
from thaw.data.table_cells import SEPARATOR
from thaw.data.tables import read_labels
from thaw.data.walk import IMAGE_SUFFIXES, Omitted, existing_folder, images_below, printable
from thaw.errors import DataError
from thaw.formats import count
from thaw.progress import Bar
from thaw.remote import SILENT, mirrored

NO_LABEL = "no label"
"""The class of images without any label in a table in which others have several."""


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder.

    Attributes:
        manifest: Their paths, in natural order; the column `labels` is empty for those without a label.
        notes: Remarks for the user.
    """

    manifest: Manifest
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, folder: Path, table: Path | None = None, bar: Bar = SILENT) -> ImageFolder:
        """List a folder, whose sub-folders mean nothing, and read the labels of a table.

        Args:
            folder: The folder of images.
            table: A table with the columns path and label, or an export of an annotation tool; paths are relative to
                the folder of images or to that of the table. An image with several labels has the class of all of them
                together, and in a table with such images an empty cell means that an image has none of the labels.
            bar: Shows the progress of downloads, where the folder or the table is on remote storage.

        Raises:
            DataError: There is no image, the table cannot be used, or none of its paths is in the folder.
        """
        root, omitted = existing_folder(mirrored(folder, bar)).resolve(), Omitted()
        paths = list(images_below(root, omitted))
        if not paths:
            supported = ", ".join(sorted(IMAGE_SUFFIXES))
            raise DataError(f"{folder}: no image in this folder, {omitted.kinds()}; supported are {supported}")
        labels, notes = _labels_of(mirrored(table, bar), root, paths) if table else ({}, ())
        rows = new_table(paths, [[labels[path]] if path in labels else [] for path in paths])
        manifest = Manifest(rows, tuple(sorted(set(labels.values()))), "multiclass", root)
        return cls(manifest, (*omitted.notes(), *notes))


def _labels_of(table: Path, root: Path, paths: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The label of each path that a table labels, and remarks."""
    known = {_place(root, path): path for path in paths}
    # `Path.resolve` would raise an error for links that lead to each other.
    file = Path(os.path.realpath(table))
    readings = [read_labels(file, folder) for folder in dict.fromkeys((root, file.parent))]
    rows = max(readings, key=lambda rows: sum(_place(rows.root, path) in known for path in _paths(rows)))
    labels: list[list[str]] = rows.table.column("labels").to_pylist()
    labelled = [
        (path, SEPARATOR.join(sorted(names)), place)
        for path, names, place in zip(_paths(rows), labels, rows.row_names, strict=True)
        if names
    ]
    names = unify({label: f"{table}: {place}" for _, label, place in reversed(labelled)})
    classes = {path: names.class_of[label] for path, label, _ in labelled}
    empty = [path for path, own in zip(_paths(rows), labels, strict=True) if not own]
    notes = [*rows.notes, *names.notes]
    if any(len(own) > 1 for own in labels):
        classes |= dict.fromkeys(empty, NO_LABEL)
    elif empty:
        notes.append(f"{table.name}: not used for want of a label: {count(len(empty), 'row')}")
    strangers = [path for path in _paths(rows) if _place(rows.root, path) not in known]
    if len(strangers) == len(rows.row_names):
        raise DataError(f"{table}: no path in it is an image in {root}, for example {printable(strangers[0])}")
    if strangers:
        missing = f"{count(len(strangers), 'path')} not in the folder of images"
        notes.append(f"{table.name}: {missing}, for example {printable(strangers[0])}")
    found = {known[place]: name for path, name in classes.items() if (place := _place(rows.root, path)) in known}
    return found, tuple(notes)


def _paths(rows: Rows) -> list[str]:
    paths: list[str] = rows.table.column("path").to_pylist()
    return paths


def _place(root: Path, path: str) -> str:
    """Where a path leads, whichever links its folders go through; the name of a file may be a link of its own."""
    folder, name = os.path.split(root / path)
    return str(Path(os.path.realpath(folder)) / name)
