"""The labelled images in folders of their classes, for tools that read labels from folders: a copy, or a zip file."""

from __future__ import annotations

import io
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from thaw import atomic
from thaw.errors import DataError, UnreadableImage
from thaw.progress import OnProgress
from thaw.studio.disk_room import check_room
from thaw.studio.file_names import NOT_IN_NAMES, is_device
from thaw.studio.images import Images
from thaw.studio.marks import Mark
from thaw.studio.project import Project

_NOT_IN_FOLDERS = f"{NOT_IN_NAMES}/\\"
"""On some system, in the name of a folder."""


@dataclass(frozen=True)
class Copied:
    """A copy in class folders.

    Attributes:
        path: The folder.
        images: How many there are.
        left_out: The paths of labelled images whose files are not readable, or not as they were.
        renamed: The folder of each class whose name cannot be that of a folder.
    """

    path: Path
    images: int
    left_out: tuple[str, ...]
    renamed: dict[str, str]


def copy_to_class_folders(project: Project, images: Images, marks: Sequence[Mark], advance: OnProgress) -> Copied:
    """Copy every labelled image into a new folder of the project.

    Args:
        project: Where the new folder goes.
        images: The images.
        marks: The mark of each of the first rows.
        advance: Called with the images done and their total.

    Raises:
        DataError: No image has a label.
        WriteError: The disk is full; nothing is left of the copy.
    """
    places = places_of(images, marks)
    if not places:
        raise DataError("label images first: no image has a label")
    folder = next(one for number in count(1) if not (one := project.class_folders(number)).exists())
    files = [images.file(row) for row in places]
    check_room(folder, sum(file.stat().st_size for file in files if file.is_file()))
    left_out = []
    with atomic.new_folder(folder) as building:
        for done, (row, place) in enumerate(places.items()):
            advance(done, len(places))
            try:
                content = images.read(row)
            except UnreadableImage:
                left_out.append(images.paths[row])
                continue
            file = building / place
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
    return Copied(folder, len(places) - len(left_out), tuple(left_out), renamed_classes(marks))


def zipped(images: Images, marks: Sequence[Mark]) -> Iterator[bytes]:
    """A zip file with the same folders, piece by piece; it is never whole in memory or on disk.

    Images whose files are not readable, or not as they were, are listed in a file `left-out.txt`.
    """
    stream, left_out = _Pieces(), []
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for row, place in places_of(images, marks).items():
            try:
                archive.writestr(place, images.read(row))
            except UnreadableImage as error:
                left_out.append(f"{images.paths[row]}: {error}")
            yield stream.take()
        if left_out:
            archive.writestr("left-out.txt", "\n".join(left_out) + "\n")
    yield stream.take()


def places_of(images: Images, marks: Sequence[Mark]) -> dict[int, str]:
    """CLASS/NAME of each labelled row; where a name occurs twice in a class, the later file gets a number."""
    folders, taken, places = _folders(marks), set(), {}
    # Each goes on where it was: cameras call thousands of files alike.
    numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: count(2))
    for row, mark in enumerate(marks):
        if mark.label is None:
            continue
        name = Path(images.paths[row])
        place = wanted = f"{folders[mark.label]}/{name.name}"
        while place.casefold() in taken:
            place = f"{folders[mark.label]}/{name.stem}-{next(numbers[wanted.casefold()])}{name.suffix}"
        taken.add(place.casefold())
        places[row] = place
    return places


def renamed_classes(marks: Sequence[Mark]) -> dict[str, str]:
    """The folder of each class whose name cannot be that of a folder."""
    return {label: folder for label, folder in _folders(marks).items() if label != folder}


def _folders(marks: Sequence[Mark]) -> dict[str, str]:
    """The folder of each class: its name, with another character for each that some system does not allow."""
    folders: dict[str, str] = {}
    taken: set[str] = set()
    for label in dict.fromkeys(mark.label for mark in marks if mark.label is not None):
        name = "".join("_" if one in _NOT_IN_FOLDERS or ord(one) < ord(" ") else one for one in label)
        name = name.encode()[:200].decode("utf-8", "ignore").rstrip(". ")
        if not name or name.startswith((".", "~")) or is_device(name):
            name = f"_{name}"
        numbered = (f"{name}-{number}" for number in count(2))
        folder = name
        while folder.casefold() in taken:
            folder = next(numbered)
        taken.add(folder.casefold())
        folders[label] = folder
    return folders


class _Pieces(io.RawIOBase):
    """A file that can only be written, whose content is taken away now and then."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self._waiting += piece
        return len(piece)

    def take(self) -> bytes:
        content, self._waiting = bytes(self._waiting), bytearray()
        return content
