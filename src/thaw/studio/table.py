"""The labels of now as a table, to train on and to take along."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from thaw.studio.images import Images
from thaw.studio.marks import Mark


def label_rows(images: Images, marks: Sequence[Mark]) -> Iterator[tuple[object, ...]]:
    """Header and rows: path, label and, where the data has them, split and group of every labelled image.

    Paths are absolute, so that the table can be moved. Excluded images, and those without a label, are left out.
    """
    columns = {name: images.manifest.column(name) for name in ("split", "group")}
    given = [name for name, values in columns.items() if any(values)]
    yield ("path", "label", *given)
    for row, mark in enumerate(marks):
        if mark.label is not None:
            yield (images.file(row), mark.label, *(columns[name][row] for name in given))


def labelled_paths(table: Path) -> list[str]:
    """The paths in a table of `label_rows`."""
    with table.open(encoding="utf-8", newline="") as stream:
        return [row[0] for row in csv.reader(stream)][1:]
