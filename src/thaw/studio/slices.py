"""Accuracy by the values of every column that a table of images has besides: camera, line, supplier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from thaw.data.table_cells import is_empty
from thaw.data.table_files import RawTable, read_cells
from thaw.errors import DataError
from thaw.metrics import Estimate, Scored
from thaw.studio.images import Images
from thaw.studio.project import Project

MAX_VALUES = 50
"""A column with more is a number or a name, of which each image has its own."""
_PATHS = ("path", "file_name")
_NOT_EXTRA = frozenset((*_PATHS, "label", "labels", "split", ""))
_MAX_LENGTH = 80


@dataclass(frozen=True)
class Slice:
    """The images with one value in a column, and the accuracy on them."""

    column: str
    value: str
    images: int
    accuracy: Estimate


def extra_columns(project: Project, images: Images) -> dict[str, list[str]]:
    """The cells of every extra column of the project's table, one per row of the project; empty where there is none."""
    file = project.table or project.images
    if not file.is_file():
        return {}
    try:
        wanted = [name for name in read_cells(file, ()).names if name not in _NOT_EXTRA]
        table = read_cells(file, (*_PATHS, *wanted))
    except DataError:
        # An export has no columns, and a table that was damaged after Studio was opened has none that can be read.
        return {}
    places = _rows_of(table, images)
    found = {}
    for name in wanted:
        cells = [""] * len(images)
        for row, cell in zip(places, table.columns.get(name, ()), strict=name in table.columns):
            if row is not None and not is_empty(cell):
                cells[row] = str(cell).strip()[:_MAX_LENGTH]
        found[name] = cells
    return found


def slices(columns: Mapping[str, Sequence[str]], rows: Sequence[int | None], scored: Scored) -> list[Slice]:
    """The slices of scored images, in front the one whose accuracy is surely low: with the lowest upper bound.

    Args:
        columns: As from `extra_columns`.
        rows: The row of each scored image in the project; `None` where it is no longer there, or is another image.
        scored: Their labels, true and predicted.
    """
    found = []
    for column, cells in columns.items():
        values = np.array(["" if row is None else cells[row] for row in rows])
        distinct = sorted(set(values.tolist()) - {""})
        if not 2 <= len(distinct) <= MAX_VALUES:
            continue
        for value in distinct:
            where = values == value
            accuracy = scored.fraction(scored.correct, where)
            assert accuracy is not None
            found.append(Slice(column, value, int(where.sum()), accuracy))
    return sorted(found, key=lambda one: (one.accuracy.high, one.accuracy.value))


def _rows_of(table: RawTable, images: Images) -> list[int | None]:
    """The row in the project of each row of the table, whose paths are relative to the images or to the table."""
    paths = next((table.columns[name] for name in _PATHS if name in table.columns), [""] * len(table.row_names))
    roots = (images.manifest.root, table.file.parent.resolve())
    readings = [[images.row_of_file(root / str(path)) for path in paths] for root in roots]
    return max(readings, key=lambda rows: sum(row is not None for row in rows))
