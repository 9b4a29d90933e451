"""Lists the image files below a folder in natural order, and remembers what it left out; nothing is decoded."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from errno import ELOOP
from heapq import merge
from itertools import groupby
from pathlib import Path
from stat import S_ISDIR

from thaw.errors import DataError
from thaw.formats import count, listed
from thaw.marker import is_written_by_thaw

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
HIDDEN = "hidden"

_SYSTEM_FOLDERS = frozenset(
    {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__"}
)
"""Folders that archives, network drives and operating systems add; like hidden ones they hold no data of the user."""
_LEVELS = 2
_DIGITS = re.compile(r"(\d+)")


@dataclass
class LeftOut:
    """What a walk came across without listing it, filled while it runs; paths are relative to the folder.

    Attributes:
        exclude: Folders to leave out: a name, or a path relative to the folder.
        strict: Raise `DataError` for a file name that is not valid UTF-8; otherwise it is collected.
        files: Number of files that are not images, by suffix; `hidden` for hidden files and folders.
        first: The first file of each suffix.
        written_by_thaw: Folders that Thaw wrote.
        undecodable: Files whose names are not valid UTF-8, with escapes.
        excluded: Folders left out because of `exclude`.
        folders: All other folders on the two upper levels.
    """

    exclude: Sequence[str] = ()
    strict: bool = True
    files: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    written_by_thaw: list[str] = field(default_factory=list)
    undecodable: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """Remarks for the user on whole folders that were left out."""
        found = self.written_by_thaw
        if not found:
            return ()
        return (f"left out {count(len(found), 'folder')} written by Thaw: {listed(found)}",)

    def kinds(self) -> str:
        """The files that are not images, as `5 .gif, 2 without suffix`."""
        common = [f"{number:,} {suffix or 'without suffix'}" for suffix, number in self.files.most_common()]
        return listed(common)

    def excludes(self, folder: str) -> bool:
        """Whether a folder is among those to leave out."""
        path = f"/{unicodedata.normalize('NFC', folder)}"
        return any(path.endswith(f"/{unicodedata.normalize('NFC', name.strip('/'))}") for name in self.exclude)

    def add_file(self, path: str, kind: str) -> None:
        """Count a file that is not an image."""
        self.files[kind] += 1
        self.first.setdefault(kind, path)


def images_below(folder: Path, left_out: LeftOut) -> Iterator[str]:
    """Relative paths of all image files below a folder, in natural order, without hidden files and folders.

    Lazy: only the names in the folders on the current path are in memory. Folders that Thaw wrote are left out, but
    the folder itself may be one.

    Raises:
        DataError: The folder is missing, is a file, or cannot be listed.
    """
    return _walk(existing_folder(folder), "", (), left_out)


def images_under(folder: Path, left_out: LeftOut | None = None) -> Iterator[Path]:
    """All image files below a folder as `images_below` lists them; `left_out` tells afterwards what is not among them.

    Example:
        >>> left_out = LeftOut(strict=False)
        >>> files = list(images_under(Path("images"), left_out))
        >>> left_out.files[".gif"], left_out.written_by_thaw, left_out.notes()
        (0, [], ())
    """
    return (folder / path for path in images_below(folder, left_out or LeftOut()))


def described(folder: Path) -> str:
    """What a folder without images holds instead, as `it is empty` or `only 5 .gif`."""
    left_out = LeftOut(strict=False)
    for _ in images_below(folder, left_out):
        pass
    return f"only {left_out.kinds()}" if left_out.files else "it is empty"


def existing_folder(folder: Path) -> Path:
    """The folder unchanged; raises `DataError` if there is none."""
    try:
        status = folder.stat()
    except FileNotFoundError as error:
        reason = "a link to something that does not exist" if folder.is_symlink() else "no such folder"
        raise DataError(f"{folder}: {reason}") from error
    except OSError as error:
        reason = "a link that leads to itself" if error.errno == ELOOP else f"cannot be listed: {_reason(error)}"
        raise DataError(f"{folder}: {reason}") from error
    if not S_ISDIR(status.st_mode):
        raise DataError(f"{folder}: is a file, not a folder of images")
    return folder


def natural_key(text: str) -> tuple[str, str]:
    """Sort key that orders numbers in text by value: class2 before class10."""
    pieces = _DIGITS.split(text)
    # Numbers are prefixed with their number of digits; a text sorts before its own extensions.
    numbers = [piece.lstrip("0") for piece in pieces[1::2]]
    pieces[1::2] = [f"\0{chr(len(number))}{number}" for number in numbers]
    return "".join(pieces), text


def utf8(path: str) -> str:
    """The path unchanged; raises `DataError` if it cannot be stored in tables and JSON files."""
    if not _is_utf8(path):
        raise DataError(f"{_escaped(path)}: the file name is not valid UTF-8; rename it")
    return path


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...], left_out: LeftOut) -> Iterator[str]:
    """Paths of the images below a folder, prefixed, in natural order.

    `above` are the parent folders, to which a link may lead back.
    """
    try:
        status = folder.stat()
        with os.scandir(folder) as listing:
            entries = list(listing)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {_reason(error)}") from error
    if prefix and is_written_by_thaw([entry.name for entry in entries]):
        left_out.written_by_thaw.append(_escaped(prefix.rstrip("/")))
        return
    if 0 < prefix.count("/") <= _LEVELS:
        left_out.folders.append(prefix.rstrip("/"))
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    names = [name for entry in entries if (name := _name_of(entry, prefix, left_out))]
    names.sort(key=natural_key)
    for _, equivalent in groupby(names, key=_order_key):
        below = [_below(folder, name, prefix, (*above, here), left_out) for name in equivalent]
        yield from below[0] if len(below) == 1 else merge(*below, key=natural_key)


def _below(
    folder: Path, name: str, prefix: str, above: tuple[tuple[int, int], ...], left_out: LeftOut
) -> Iterable[str]:
    """The image of this name, or the images in the folder of this name."""
    if name.endswith("/"):
        return _walk(folder / name, prefix + name, above, left_out)
    if left_out.strict or _is_utf8(prefix + name):
        return (utf8(prefix + name),)
    left_out.undecodable.append(_escaped(prefix + name))
    return ()


def _name_of(entry: os.DirEntry[str], prefix: str, left_out: LeftOut) -> str:
    """The name of an image, or of a folder with a slash appended; anything else is counted and gives ""."""
    path = prefix + entry.name
    if entry.name.startswith(".") or (entry.name in _SYSTEM_FOLDERS and _is_folder(entry)):
        left_out.add_file(_escaped(path), HIDDEN)
    elif _is_folder(entry):
        if not left_out.excludes(path):
            return f"{entry.name}/"
        left_out.excluded.append(path)
    else:
        _, dot, ending = entry.name.rpartition(".")
        suffix = (dot + ending).lower() if dot and ending else ""
        if suffix in IMAGE_SUFFIXES:
            return entry.name
        left_out.add_file(_escaped(path), _escaped(suffix))
    return ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; a link that leads nowhere, or to itself, is a file."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _order_key(name: str) -> str:
    """Equal for folders whose names differ only in leading zeros, whose images are interleaved (1/a, 01/b, 1/c)."""
    return natural_key(name)[0] if name.endswith("/") else name


def _is_utf8(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _escaped(path: str) -> str:
    """The path with escapes for what is not valid UTF-8."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
