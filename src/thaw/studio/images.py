"""The images of a project: their files, what they hold, and the labels that they came with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from thaw.cores import worker_count
from thaw.data.dataset import Dataset
from thaw.data.digests import digest_files, memory_of
from thaw.data.manifest import Manifest
from thaw.data.table_cells import SEPARATOR
from thaw.errors import DataError, first_line
from thaw.labelling.folder import ImageFolder
from thaw.progress import Bar
from thaw.remote import mirrored

_DIGITS, _VERSION = 64, 16


@dataclass(frozen=True)
class Images:
    """The rows of a project; nothing is decoded.

    Attributes:
        manifest: One row an image; its labels are those that the images came with.
        digests: SHA-256 of each file; of one that cannot be read, the reason.
        notes: Remarks for the user.
    """

    manifest: Manifest
    digests: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, place: Path, table: Path | None, cache: Path, bar: Bar) -> Images:
        """List the images of a folder or a table, and read which content each file has.

        Args:
            place: A folder, whose class folders are the labels where every image is in one; or a table of images. Also
                on remote storage.
            table: For a folder, the labels of its images, or an export of an annotation tool.
            cache: The folder that remembers the content of files.
            bar: Opens a progress bar with a title.

        Raises:
            DataError: There is no image, or the labels cannot be used.
        """
        manifest, notes = _listed(mirrored(place, bar), mirrored(table, bar) if table else None)
        several = next((labels for labels in manifest.column("labels") if len(labels) > 1), None)
        joined = next((name for name in manifest.classes if SEPARATOR in name), None)
        if several or joined:
            example = joined or SEPARATOR.join(several or ())
            raise DataError(f"{table or place}: an image has the labels {example}; Studio edits one label an image")
        files = manifest.files()
        digests = digest_files(files, memory_of(files, cache), worker_count(), bar("check images"))
        return cls(manifest, tuple(digests), notes)

    def __len__(self) -> int:
        return len(self.digests)

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The path of each row, relative to the folder where possible."""
        return tuple(self.manifest.column("path"))

    @cached_property
    def labels(self) -> tuple[str | None, ...]:
        """The label that each row came with."""
        return tuple(labels[0] if labels else None for labels in self.manifest.column("labels"))

    @cached_property
    def splits(self) -> tuple[str | None, ...]:
        """The given split of each row, where the data has splits."""
        return tuple(self.manifest.column("split"))

    def version(self, row: int) -> str | None:
        """What tells in URLs which content the file of a row had; `None` if it could not be read."""
        return self.digests[row][:_VERSION] if self.is_readable(row) else None

    def changed(self, rows: Sequence[int], cache: Path) -> list[str]:
        """The paths of those of some rows whose files have been replaced or removed since the images were opened."""
        files = self.manifest.files()
        digests = digest_files(files, memory_of(files, cache), worker_count(), lambda done, total: None)
        return [self.paths[row] for row in rows if digests[row] != self.digests[row]]

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {os.path.normpath(file): row for row, file in enumerate(self.manifest.files())}

    def row_of_file(self, file: str | Path) -> int | None:
        """The row of a file; `None` if it is not of the project."""
        return self._row_of.get(os.path.normpath(file))

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
