"""Labelled images on disk, listed but not yet decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pyarrow as pa

from thaw.data.ahead import DecodingAhead
from thaw.data.class_names import unify
from thaw.data.layouts import DEFAULTS, EXPORT_SUFFIXES, TABLE_SUFFIXES, Rows, read_folder, table_hint
from thaw.data.manifest import SCHEMA, Manifest
from thaw.data.tables import read_metadata, read_table
from thaw.data.walk import existing_folder, natural_key
from thaw.errors import DataError
from thaw.formats import count, listed
from thaw.progress import Bar
from thaw.recipe import FolderSettings, Task
from thaw.remote import SILENT, is_remote, mirrored
from thaw.writing import path_errors_explained

RequestedTask = Literal["auto"] | Task

_NOTES_SHOWN = 3


@dataclass(frozen=True)
class Dataset:
    """A data set as a manifest, before decoding and splitting, with remarks for the user.

    ahead: a process that decodes its images already, if there is one.
    """

    manifest: Manifest
    notes: tuple[str, ...] = ()
    ahead: DecodingAhead | None = field(default=None, repr=False, compare=False)

    @classmethod
    @path_errors_explained()
    def open(
        cls,
        path: str | Path,
        task: RequestedTask = "auto",
        classes: Sequence[str] = (),
        folders: FolderSettings = DEFAULTS,
        bar: Bar = SILENT,
    ) -> Dataset:
        """Open a folder of images, a .csv, .tsv, .parquet or .jsonl table of them, or an annotation tool's export.

        Args:
            path: The folder or table, which may be on remote storage (s3://bucket/images); it is mirrored then.
            task: The task; "auto" derives it from the labels.
            classes: Order of the classes, which need not all occur; other classes follow in natural order.
            folders: How a folder is read; only for folders without a metadata file.
            bar: Shows the progress of downloads.

        Raises:
            DataError: The folder or table is missing, malformed, or does not fit the task.
        """
        place = mirrored_images(path, bar)
        if not place.is_dir() and (place.exists() or place.suffix.lower() in TABLE_SUFFIXES + EXPORT_SUFFIXES):
            _check_no_settings(place, folders)
            return cls.from_table(place, task, classes, bar)
        return cls.from_folder(place, task, classes, folders)

    @classmethod
    @path_errors_explained()
    def from_folder(
        cls,
        path: str | Path,
        task: RequestedTask = "auto",
        classes: Sequence[str] = (),
        folders: FolderSettings = DEFAULTS,
    ) -> Dataset:
        """Open class folders, split folders with class folders, or a folder with a metadata file of the Hub."""
        root = existing_folder(mirrored(path)).resolve()
        rows = read_metadata(root, classes)
        if rows:
            _check_no_settings(root, folders)
        return cls(*_described(rows or read_folder(root, folders, classes), task, classes))

    @classmethod
    @path_errors_explained()
    def from_table(
        cls, path: str | Path, task: RequestedTask = "auto", classes: Sequence[str] = (), bar: Bar = SILENT
    ) -> Dataset:
        """Open a table with the columns path and label (or labels), and optionally split and group."""
        return cls(*_described(read_table(_resolved(mirrored(path, bar)), classes, bar), task, classes))

    def as_task(self, task: RequestedTask) -> Dataset:
        """The same images for another task; raises `DataError` if their labels do not fit it."""
        manifest = self.manifest
        if task == "auto" or task == manifest.task:
            return self
        for path, labels in zip(manifest.column("path"), manifest.column("labels"), strict=True):
            if task != "multilabel" and len(labels) != 1:
                raise DataError(f"{manifest.root}: {path} has {len(labels)} labels, but task {task} needs one")
        if task == "binary" and len(manifest.classes) != 2:
            raise DataError(f"{manifest.root}: {len(manifest.classes)} classes, but task binary needs two")
        return replace(self, manifest=replace(manifest, task=task))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in the order of the outputs."""
        return self.manifest.classes

    @property
    def task(self) -> Task:
        """multiclass, binary or multilabel."""
        return self.manifest.task

    def __len__(self) -> int:
        return len(self.manifest)

    def __repr__(self) -> str:
        return f"Dataset({len(self):,} images, {len(self.classes)} classes, {self.task}, {self.manifest.root})"


def mirrored_images(path: str | Path, bar: Bar = SILENT) -> Path:
    """The mirror of a folder or table on remote storage, as `Dataset.open` reads it; a local place as it is."""
    if is_remote(path) and Path(path).suffix.lower() in EXPORT_SUFFIXES:
        # An export names its images in ways that are matched to the files that are there.
        mirrored(str(path).rpartition("/")[0], bar)
    return mirrored(path, bar)


def _check_no_settings(place: Path, folders: FolderSettings) -> None:
    if folders != DEFAULTS:
        raise DataError(f"{place}: a table names its images, so the settings layout and exclude do not apply to it")


def _resolved(file: Path) -> Path:
    try:
        return file.resolve()
    except (OSError, RuntimeError) as error:
        raise DataError(f"{file}: a link that leads to itself") from error


def _described(rows: Rows, task: RequestedTask, given: Sequence[str]) -> tuple[Manifest, tuple[str, ...]]:
    """The manifest of some rows, with one spelling of each class, and remarks for the user."""
    spelled = rows.table.column("labels").to_pylist()
    names = unify(_first_places(rows, spelled), given)
    labels = [list(dict.fromkeys(names.class_of[text] for text in texts)) for texts in spelled]
    found = sorted(set(names.class_of.values()), key=natural_key)
    classes = (*given, *(name for name in found if name not in given))
    resolved = _resolve(task, rows, labels, classes)
    if not given:
        _check_count(resolved, rows, classes)
    table = rows.table
    if any(text != name for text, name in names.class_of.items()):
        position, field = SCHEMA.get_field_index("labels"), SCHEMA.field("labels")
        table = table.set_column(position, field, pa.array(labels, field.type))
    manifest = Manifest(table, classes, resolved, rows.root, rows.ignored)
    return manifest, (*rows.notes, *_few(names.notes))


def _first_places(rows: Rows, labels: Sequence[Sequence[str]]) -> dict[str, str]:
    """Where each spelling of a label occurs first."""
    first: dict[str, int] = {}
    for row, texts in enumerate(labels):
        for text in texts:
            first.setdefault(text, row)
    return {text: _row_name(rows, row) for text, row in first.items()}


def _few(notes: Sequence[str]) -> tuple[str, ...]:
    more = len(notes) - _NOTES_SHOWN
    return (*notes[:_NOTES_SHOWN], *([f"and {count(more, 'more label')} like these"] if more > 0 else ()))


def _resolve(task: RequestedTask, rows: Rows, labels: Sequence[Sequence[str]], classes: Sequence[str]) -> Task:
    """The task; raises `DataError` if a row has more or fewer labels than the task allows."""
    multiple = next((row for row, names in enumerate(labels) if len(names) > 1), None)
    if task == "multilabel" or (task == "auto" and multiple is not None):
        return "multilabel"
    if multiple is not None:
        raise DataError(
            f"{_row_name(rows, multiple)} has {len(labels[multiple])} labels; set task to multilabel or leave one"
        )
    none = next((row for row, names in enumerate(labels) if not names), None)
    if none is not None:
        raise DataError(
            f"{_row_name(rows, none)} has no label; label it or remove the row (only multilabel images may have none)"
        )
    if task == "auto":
        return "binary" if len(classes) == 2 else "multiclass"
    return task


def _check_count(task: Task, rows: Rows, classes: Sequence[str]) -> None:
    if not classes:
        raise DataError(f"{rows.source}: no image has a label")
    if len(classes) == 1 and task != "multilabel":
        # What was read through a table of the folder needs no other one.
        hint = rows.hint or ("" if rows.row_names else table_hint(rows.source))
        raise DataError(f"{rows.source}: only one class, {classes[0]}; a classifier needs at least two{hint}")
    if task == "binary" and len(classes) != 2:
        raise DataError(
            f"{rows.source}: {len(classes)} classes ({listed(classes)}), but task binary needs two; "
            "set task to multiclass"
        )


def _row_name(rows: Rows, row: int) -> str:
    path = rows.table.column("path")[row].as_py()
    return f"{rows.source}: {rows.row_names[row]} ({path})" if rows.row_names else f"{rows.source}: {path}"
