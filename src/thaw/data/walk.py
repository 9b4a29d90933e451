"""Lists the files below a folder in natural order, and tells what it omits; nothing is decoded."""

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

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".webp"})
HIDDEN = "hidden"

SYSTEM_FOLDERS = frozenset(
    {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__"}
)
"""Folders that archives, network drives and operating systems add; like hidden ones they hold no data of the user."""
_LEVELS = 2
_DIGITS = re.compile(r"(\d+)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.]+:")


@dataclass
class Omitted:
    """What a walk omits, filled while it runs; paths are relative to the folder.

    Attributes:
        exclude: Folders to leave out: a name, or a path relative to the folder.
        files: Number of files by suffix, `hidden` for hidden files and folders.
        written_by_thaw: Folders that Thaw wrote.
        excluded: Folders left out because of `exclude`.
        folders: All other folders on the two upper levels.
    """

    exclude: Sequence[str] = ()
    files: Counter[str] = field(default_factory=Counter)
    written_by_thaw: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """Remarks for the user on folders that were left out."""
        found = self.written_by_thaw
        return (f"left out {count(len(found), 'folder')} written by Thaw: {listed(found)}",) if found else ()

    def kinds(self) -> str:
        """The files, as `only 5 .gif, 2 without suffix`, or `it is empty`."""
        kinds = [f"{number:,} {suffix or 'without suffix'}" for suffix, number in self.files.most_common()]
        return f"only {listed(kinds)}" if kinds else "it is empty"

    def excludes(self, folder: str) -> bool:
        """Whether a folder is among those to leave out."""
        path = f"/{unicodedata.normalize('NFC', folder)}"
        names = (name.replace(os.sep, "/").strip("/") for name in self.exclude)
        return any(path.endswith(f"/{unicodedata.normalize('NFC', name)}") for name in names)

    def has_excluded(self, name: str) -> bool:
        """Whether a name of `exclude` has left a folder out."""
        return any(Omitted(exclude=(name,)).excludes(folder) for folder in self.excluded)


def files_below(folder: Path, omitted: Omitted) -> Iterator[str]:
    """Relative paths of all files below a folder, of any kind, in natural order; hidden ones are only counted.

    Lazy: only the names in the folders on the current path are in memory. Folders that Thaw wrote are left out, though
    the folder itself may be one. Names that are not valid UTF-8 are listed as they are; see `utf8`.

    Raises:
        DataError: The folder is missing, is a file, or cannot be listed.
    """
    return _walk(existing_folder(folder), "", (), omitted)


def images_below(folder: Path, omitted: Omitted) -> Iterator[str]:
    """Relative paths of the image files among `files_below`; the others are counted in `omitted`.

    Raises:
        DataError: As `files_below`, or the name of an image is not valid UTF-8.
    """
    for path in files_below(folder, omitted):
        if (suffix := suffix_of(path)) in IMAGE_SUFFIXES:
            yield utf8(path)
        else:
            omitted.files[printable(suffix)] += 1


def suffix_of(path: str) -> str:
    """The suffix of a file name in lower case, such as ".png"; empty if it has none."""
    stem, dot, ending = path.rpartition("/")[2].rpartition(".")
    return (dot + ending).lower() if stem and ending else ""


def kinds_in(folder: Path) -> str:
    """What a folder without images holds, as `only 5 .gif` or `it is empty`."""
    omitted = Omitted()
    for path in files_below(folder, omitted):
        omitted.files[printable(suffix_of(path))] += 1
    return omitted.kinds()


def existing_folder(folder: Path) -> Path:
    """The folder unchanged; raises `DataError` if there is none."""
    try:
        status = folder.stat()
    except FileNotFoundError as error:
        reason = "a link to something that does not exist" if folder.is_symlink() else "no such folder"
        if _SCHEME.fullmatch(str(folder)):
            # `Path` has dropped the slashes.
            raise DataError(f"{folder}//: names no bucket or server; write {folder}//NAME/images") from error
        raise DataError(f"{folder}: {reason}") from error
    except OSError as error:
        reason = "a link that leads to itself" if error.errno == ELOOP else f"cannot be listed: {error.strerror}"
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
        raise DataError(f"{printable(path)}: the file name is not valid UTF-8; rename it")
    return path


def printable(path: str | Path) -> str:
    r"""The path as text, in which bytes that are not valid UTF-8 are escaped, such as \xe9."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...], omitted: Omitted) -> Iterator[str]:
    """Paths of the files below a folder, prefixed, in natural order.

    `above` are the parent folders, to which a link may lead back.
    """
    try:
        status = folder.stat()
        with os.scandir(folder) as listing:
            entries = list(listing)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error
    if prefix and is_written_by_thaw([entry.name for entry in entries]):
        omitted.written_by_thaw.append(printable(prefix.rstrip("/")))
        return
    if 0 < prefix.count("/") <= _LEVELS:
        omitted.folders.append(prefix.rstrip("/"))
    here = (status.st_dev, status.st_ino)
    # File systems without links may have no inode numbers either, and then every folder has 0.
    if status.st_ino and here in above:
        return
    names = [name for entry in entries if (name := _name_of(entry, prefix, omitted))]
    names.sort(key=natural_key)
    for _, equivalent in groupby(names, key=_order_key):
        below = [_below(folder, name, prefix, (*above, here), omitted) for name in equivalent]
        yield from below[0] if len(below) == 1 else merge(*below, key=natural_key)


def _below(folder: Path, name: str, prefix: str, above: tuple[tuple[int, int], ...], omitted: Omitted) -> Iterable[str]:
    """The file of this name, or the files in the folder of this name."""
    return _walk(folder / name, prefix + name, above, omitted) if name.endswith("/") else (prefix + name,)


def _name_of(entry: os.DirEntry[str], prefix: str, omitted: Omitted) -> str:
    """The name of a file, or of a folder with a slash appended; "" for what is left out."""
    is_folder = _is_folder(entry)
    if entry.name.startswith(".") or (is_folder and entry.name in SYSTEM_FOLDERS):
        omitted.files[HIDDEN] += 1
        return ""
    if is_folder and omitted.excludes(prefix + entry.name):
        omitted.excluded.append(prefix + entry.name)
        return ""
    return f"{entry.name}/" if is_folder else entry.name


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
