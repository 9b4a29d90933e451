"""Adds images to a project: copies of what was dropped in the browser, under the names that they had."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from thaw import atomic
from thaw.data.walk import IMAGE_SUFFIXES, SYSTEM_FOLDERS, suffix_of
from thaw.errors import WriteError
from thaw.formats import size as shown_size
from thaw.studio.archive import Archive, Refused
from thaw.studio.file_names import NOT_IN_NAMES, is_device
from thaw.studio.folder_labels import labels_of_folders
from thaw.studio.images import Images
from thaw.studio.labels import Edit, Labels
from thaw.studio.project import Project
from thaw.writing import explained, is_full

MAX_IMAGE_BYTES = 256 << 20
"""Of one image file."""
_MAX_PATH, _MAX_NAME = 1000, 240
_EXAMPLES = 3
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM")
"""Of the formats that Thaw reads, besides WebP."""


@dataclass
class Outcome:
    """What became of some files.

    Attributes:
        added: How many images were added.
        renamed: The path that each image got whose own was taken by another image.
        left_out: The files that were not added, by reason.
    """

    added: int = 0
    renamed: list[str] = field(default_factory=list)
    left_out: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def to_json(self) -> dict[str, Any]:
        """Plain values, with a few names of each kind."""
        return {
            "added": self.added,
            "renamed": len(self.renamed),
            "renamed_examples": self.renamed[:_EXAMPLES],
            "left_out": [
                {"reason": reason, "files": len(names), "examples": names[:_EXAMPLES]}
                for reason, names in self.left_out.items()
            ],
        }


class Additions:
    """Takes images into a project; its methods can be called from any thread.

    An image is on disk before anyone is told that it was added. One whose content the project has already is left out,
    so that dropping a folder again adds what was missing.

    Attributes:
        is_stopping: Whether Studio is being closed, so that long work has to end.
        proposed: By row, the label that the folder of an image names, until this is answered.
        progress: How many files of an archive are done, and how many it has; `None` where none is read.
    """

    def __init__(self, project: Project, images: Images, labels: Labels) -> None:
        self._folder = project.added
        self._images = images
        self._labels = labels
        self._guard = threading.Lock()
        self._latest: dict[int, str] = {}
        self.is_stopping: Callable[[], bool] = lambda: False
        self.proposed: dict[int, str] = {}
        self.progress: tuple[int, int] | None = None

    def add_image(self, path: str, stream: BinaryIO) -> Outcome:
        """Add one image that had a path in the folder that was dropped; raises `WriteError` where the disk is full."""
        outcome = Outcome()
        self._add(path, stream.read, outcome)
        return outcome

    def add_archive(self, stream: BinaryIO) -> Outcome:
        """Add the images of a zip file, one after the other.

        Raises:
            DataError: It cannot be read, or expands beyond measure; what was added until then stays.
            WriteError: The disk is full; what was added until then stays.
        """
        outcome = Outcome()
        try:
            archive = Archive(stream)
            for done, file in enumerate(archive.files):
                if self.is_stopping():
                    break
                self.progress = done, len(archive.files)
                self._add(file.filename, partial(archive.read, file), outcome)
        finally:
            self.progress = None
        return outcome

    def propose(self) -> int:
        """Find out whether the folders of what was added since the last time look like classes; returns how many."""
        with self._guard:
            latest, self._latest = self._latest, {}
            waiting = {row: path for row, path in latest.items() if self._labels.mark(row).label is None}
            self.proposed = {**self.proposed, **labels_of_folders(waiting, self._labels.classes)}
            return len(latest)

    def answer(self, is_accepted: bool) -> Edit | None:
        """Label the images by their folders, or leave them as they are; raises `WriteError` where the disk is full."""
        with self._guard:
            edit = self._labels.label_new(self.proposed) if is_accepted else None
            self.proposed = {}
            return edit

    def _add(self, path: str, read: Callable[[int], bytes], outcome: Outcome) -> None:
        try:
            parts = _checked(path)
            content = read(MAX_IMAGE_BYTES + 1)
            if len(content) > MAX_IMAGE_BYTES:
                raise Refused(f"larger than {shown_size(MAX_IMAGE_BYTES)}")
            if not _begins_like_an_image(content):
                raise Refused("not an image that Thaw reads")
            with self._guard:
                self._keep(parts, content, outcome)
        except Refused as refused:
            outcome.left_out[str(refused)].append(path[:_MAX_NAME])

    def _keep(self, parts: tuple[str, ...], content: bytes, outcome: Outcome) -> None:
        digest = hashlib.sha256(content).hexdigest()
        if self._images.has_content(digest):
            raise Refused("in the project already")
        wanted = self._folder.joinpath(*parts)
        try:
            with explained(wanted):
                self._folder.mkdir(parents=True, exist_ok=True)
                # A link in the folder may lead anywhere; no folder is to be made there either.
                present = next(folder for folder in wanted.parents if os.path.lexists(folder))
                if not Path(os.path.realpath(present)).is_relative_to(os.path.realpath(self._folder)):
                    raise Refused("the folder is a link to another place")
                wanted.parent.mkdir(parents=True, exist_ok=True)
                file = next(place for place in _places(wanted) if not os.path.lexists(place))
            atomic.write_new(file, content)
        except WriteError as error:
            if not isinstance(error.__cause__, OSError) or is_full(error.__cause__):
                raise
            raise Refused(error.problem.partition(";")[0]) from error
        row = self._images.add(file, digest)
        self._labels.take_added()
        self._latest[row] = "/".join(parts)
        outcome.added += 1
        if file != wanted:
            outcome.renamed.append(file.relative_to(self._folder).as_posix())


def _checked(path: str) -> tuple[str, ...]:
    """The folders and the name in a path as it was sent, or stands in an archive; raises `Refused`."""
    if suffix_of(path) not in IMAGE_SUFFIXES:
        raise Refused("not an image that Thaw reads")
    path = path.replace("\\", "/")
    if path.startswith("/") or path[1:2] == ":":
        raise Refused("an absolute path")
    parts = tuple(path.split("/"))
    if ".." in parts:
        raise Refused("a path that leads out of its folder")
    # What is left out of a folder of images would be gone at the next start.
    if any(part.startswith(".") for part in parts) or not SYSTEM_FOLDERS.isdisjoint(parts[:-1]):
        raise Refused("hidden")
    if not all(part.strip() for part in parts):
        raise Refused("a path with an empty name in it")
    if len(path) > _MAX_PATH or any(len(part.encode("utf-8", "replace")) > _MAX_NAME for part in parts):
        raise Refused("too long a name")
    is_windows = sys.platform == "win32"
    if any(unicodedata.category(one) in ("Cc", "Cs") or (is_windows and one in NOT_IN_NAMES) for one in path):
        raise Refused("a name with characters that a file name should not have")
    if is_windows and any(is_device(part) or part.endswith((".", " ")) for part in parts):
        raise Refused("a name that Windows does not allow")
    return parts


def _places(wanted: Path) -> Iterator[Path]:
    """Where a file may go: its own name, then the same with a number."""
    yield wanted
    for number in count(2):
        yield wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")


def _begins_like_an_image(content: bytes) -> bool:
    return content.startswith(_BEGINNINGS) or (content[:4] == b"RIFF" and content[8:12] == b"WEBP")
