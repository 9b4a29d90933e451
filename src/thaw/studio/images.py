"""The images of a project: their files, what they hold, and the labels that they came with."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from thaw.cores import worker_count
from thaw.data.dataset import Dataset
from thaw.data.digests import FileState, digest_files, is_settled, memory_of, state_of
from thaw.data.image_file import read_image_file
from thaw.data.manifest import Manifest, new_table
from thaw.data.reader import current_reader
from thaw.data.table_cells import SEPARATOR
from thaw.data.walk import Omitted, images_below
from thaw.errors import DataError, UnreadableImage, first_line
from thaw.labelling.folder import ImageFolder
from thaw.progress import Bar
from thaw.remote import mirrored
from thaw.studio.marks import is_kept_by_tables
from thaw.studio.project import Project

_DIGITS, _VERSION = 64, 16


class Images:
    """The rows of a project, to which images can be added; nothing is decoded.

    A row keeps its number: added images come after all others. They have no label to begin with, whatever their folder
    is called.

    Attributes:
        paths: The path of each row, relative to the folder of images where possible.
        labels: The label that each row came with.
        splits: The given split of each row, where the data has splits.
        digests: SHA-256 of each file; of one that cannot be read, the reason.
        notes: Remarks for the user.
    """

    def __init__(
        self,
        manifest: Manifest,
        digests: Sequence[str],
        notes: tuple[str, ...] = (),
        states: Sequence[FileState | None] | None = None,
    ) -> None:
        """Images as they were listed: one row an image, and the SHA-256 of each file.

        `states`: those in which each file was hashed; `None` for one that may be another in the same state.
        """
        self._manifest = manifest
        self._states: list[FileState | None] = list(states or [None] * len(digests))
        self.paths: list[str] = manifest.column("path")
        self.labels: list[str | None] = [labels[0] if labels else None for labels in manifest.column("labels")]
        self.splits: list[str | None] = manifest.column("split")
        self.digests = list(digests)
        self.notes = notes
        self._split_of_added = _split_of_added(manifest)
        self._row_of_file = {os.path.normpath(file): row for row, file in enumerate(manifest.files())}
        self._row_of_content = {digest: row for row, digest in enumerate(digests)}

    @classmethod
    def open(cls, project: Project, cache: Path, bar: Bar) -> Images:
        """List the images of a project, and read which content each file has.

        The class folders of a folder are the labels, where every image is in one, unless there is a table of labels.
        The folder or table may be on remote storage.

        Args:
            project: Says where the images are, and those that were added in the browser.
            cache: The folder that remembers the content of files.
            bar: Opens a progress bar with a title.

        Raises:
            DataError: There is no image, or the labels cannot be used.
        """
        notes: tuple[str, ...] = ()
        if project.has_own_images:
            manifest = _unlabelled(project.added)
        else:
            table = mirrored(project.table, bar) if project.table else None
            manifest, notes = _listed(mirrored(project.images, bar), table)
            _check_one_label(manifest, project)
            added = _unlabelled(project.added)
            manifest = _with_paths(manifest, [str(added.root / path) for path in added.column("path")])
        files, began = manifest.files(), time.time_ns()
        states = [state if (state := state_of(file)) and is_settled(state, began) else None for file in files]
        digests = digest_files(files, memory_of(manifest.root, cache), worker_count(), bar("check images"))
        return cls(manifest, digests, notes, states)

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def manifest(self) -> Manifest:
        """One row an image; its labels are those that the images came with."""
        known, number = self._manifest, len(self.digests)
        if len(known) < number:
            known = self._manifest = _with_paths(known, self.paths[len(known) : number])
        return known

    def add(self, file: Path, digest: str) -> int:
        """Add an image file with this SHA-256, one at a time; returns its row."""
        row, root = len(self.digests), self._manifest.root
        self.paths.append(file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file))
        self.labels.append(None)
        self.splits.append(self._split_of_added)
        self._states.append(None)
        self._row_of_file[os.path.normpath(file)] = row
        self._row_of_content[digest] = row
        # Last: it is their number that others go by.
        self.digests.append(digest)
        return row

    def has_content(self, digest: str) -> bool:
        """Whether there is a file with this SHA-256."""
        return digest in self._row_of_content

    def file(self, row: int) -> Path:
        """The file of a row."""
        return self._manifest.root / self.paths[row]

    def version(self, row: int) -> str | None:
        """What tells in URLs which content the file of a row had; `None` if it could not be read."""
        return self.digests[row][:_VERSION] if self.is_readable(row) else None

    def changed(self, expected: Mapping[int, str]) -> list[str]:
        """The paths of those rows whose files have other content now than is expected of them, by row, or none.

        Only files are read whose size, times or inode are not those with which they were read before: reading all
        would take minutes where the file system does not tell what has changed.
        """
        began, states = time.time_ns(), {row: state_of(self.file(row)) for row in expected}
        rows = [row for row, state in states.items() if state is None or state != self._states[row]]
        read = current_reader().digests([self.file(row) for row in rows], worker_count())
        digests = dict(zip(rows, read, strict=True))
        for row, digest in digests.items():
            state = states[row]
            if state and digest == self.digests[row] and is_settled(state, began):
                self._states[row] = state
        return [self.paths[row] for row, digest in expected.items() if digests.get(row, self.digests[row]) != digest]

    def row_of_file(self, file: str | Path) -> int | None:
        """The row of a file; `None` if it is not of the project."""
        return self._row_of_file.get(os.path.normpath(file))

    def rows_of(self, manifest: Manifest) -> dict[str, int]:
        """By path in another manifest, the row of each of its images that is here with the same content."""
        found = {}
        columns = (manifest.column(name) for name in ("path", "sha256", "status"))
        for path, digest, status in zip(*columns, strict=True):
            row = self.row_of_file(manifest.root / path)
            if row is not None and status == "ok" and self.digests[row] == digest:
                found[path] = row
        return found

    def read(self, row: int) -> bytes:
        """The bytes of an image as it was labelled; raises `UnreadableImage` if its file has others by now."""
        content = read_image_file(self.file(row))
        if hashlib.sha256(content).hexdigest() != self.digests[row]:
            raise UnreadableImage("the file was replaced while Studio is open; start Studio again")
        return content

    def is_readable(self, row: int) -> bool:
        """Whether the file of a row could be read; whether it is an image shows when it is decoded."""
        return len(self.digests[row]) == _DIGITS


def _listed(place: Path, table: Path | None) -> tuple[Manifest, tuple[str, ...]]:
    """The images with their labels, and remarks."""
    if table is None and place.is_dir():
        try:
            dataset = Dataset.open(place)
        except DataError as error:
            folder = ImageFolder.open(place)
            reason = first_line(error).partition(";")[0].removeprefix(f"{folder.manifest.root}: ")
            return folder.manifest, (*folder.notes, f"every image begins without a label: {reason}")
        return dataset.manifest, dataset.notes
    if table is None:
        dataset = Dataset.open(place)
        return dataset.manifest, dataset.notes
    folder = ImageFolder.open(place, table)
    return folder.manifest, folder.notes


def _check_one_label(manifest: Manifest, project: Project) -> None:
    several = next((labels for labels in manifest.column("labels") if len(labels) > 1), None)
    joined = next((name for name in manifest.classes if SEPARATOR in name), None)
    if several or joined:
        example, place = joined or SEPARATOR.join(several or ()), project.table or project.images
        raise DataError(f"{place}: an image has the labels {example}; Studio edits one label an image")
    misread = next((name for name in manifest.classes if not is_kept_by_tables(name)), None)
    if misread:
        raise DataError(f"{project.images}: the class {misread} is read otherwise from a table of labels; rename it")


def _unlabelled(folder: Path) -> Manifest:
    """The images of a folder, which need not exist; its sub-folders mean nothing."""
    root = folder.resolve()
    paths = list(images_below(root, Omitted())) if root.is_dir() else []
    return Manifest(new_table(paths, [[] for _ in paths]), (), "multiclass", root)


def _with_paths(manifest: Manifest, paths: Sequence[str]) -> Manifest:
    """A manifest with more images, which have no label; where the data has splits, they are trained on."""
    splits = [_split_of_added(manifest)] * len(paths)
    return replace(manifest, table=pa.concat_tables([manifest.table, new_table(paths, [[] for _ in paths], splits)]))


def _split_of_added(manifest: Manifest) -> str | None:
    """Train where the data has splits, which stay as they are."""
    return "train" if any(manifest.column("split")) else None
