"""Where files may be written, and the one sentence that is said where they cannot be.

Whatever is at a place stays: a file, a folder, a device, or a link, even one that leads nowhere. A command replaces
only files that it recognises as its own by their content.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from thaw.errors import ThawError, WriteError
from thaw.in_use import IN_USE, is_in_use, is_open_elsewhere

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the file system or a limit allows",
}
"""Why there is no room, by error number; such an error comes from writing, wherever it is raised."""

FORBIDDEN = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
}
"""Why a place must not be written, by error number; the first two come from reading, too."""

REFUSED = FORBIDDEN | {
    errno.ENOENT: "there is no such folder",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EISDIR: "it is a folder",
    errno.EEXIST: "it already exists",
    errno.ENOTEMPTY: "it already exists",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "a link in the path leads to itself",
    errno.EIO: "the disk reports an error",
}
"""Why a place cannot be written although there is room, by error number; such errors come from reading, too."""


@dataclass(frozen=True)
class Own:
    """Files that a command may replace, because their content shows that it wrote them.

    name: What they are, with an article.
    """

    name: str
    recognise: Callable[[Path], bool]


def check_new(place: Path, own: Own | None = None) -> None:
    """Raise `WriteError` unless a place is free, or has one of the command's own files, and can be written."""
    if os.path.lexists(place):
        is_plain_file = stat.S_ISREG(place.lstat().st_mode)
        if own is None or not is_plain_file:
            raise WriteError(place, f"already exists{_kind_of(place)}; remove it or choose another place")
        if not own.recognise(place):
            raise WriteError(place, f"already exists and is not {own.name}; remove it or choose another place")
    _check_can_make(place, place)


def check_writable(folder: Path) -> None:
    """Raise `WriteError` unless files can be made in a folder, which may have to be made itself."""
    _check_can_make(folder / "file", folder)


def check_has_folder(file: Path) -> None:
    """Raise `WriteError` unless the folder of a file exists."""
    if not os.path.lexists(file.parent):
        raise WriteError(file, f"there is no folder {file.parent}; create it or choose another place")


def check_closed(file: Path) -> None:
    """Raise `WriteError` where another program has a file open, so that Windows would not replace it."""
    if is_open_elsewhere(file):
        raise WriteError(file, f"{IN_USE}; close it there, or choose another place")


def check_new_weights(file: Path) -> None:
    """Raise `WriteError` if weights cannot be written to `file`: it exists, has no folder, or another suffix."""
    if file.suffix.lower() != ".safetensors":
        raise WriteError(file, "weights are written as .safetensors; give the file that suffix")
    check_has_folder(file)
    check_new(file)


def is_full(error: OSError) -> bool:
    """Whether an error says that there is no room."""
    return error.errno in FULL


def failure(place: Path, error: OSError, needed: str = "") -> WriteError:
    """The sentence for an error of writing.

    Args:
        place: What was written.
        error: The error.
        needed: What needs how much room, such as "features need 1.2 GB".
    """
    if is_in_use(error) and os.path.lexists(place):
        return WriteError(place, f"{IN_USE}, or must not be written; close it there, or choose another place")
    reason = FULL.get(error.errno or 0) or REFUSED.get(error.errno or 0) or error.strerror or str(error)
    if not is_full(error):
        return WriteError(place, f"cannot be written: {reason}; choose another place")
    amount = f" ({needed})" if needed else ""
    return WriteError(place, f"cannot be written: {reason}{amount}; free some space")


@contextmanager
def explained(place: Path, needed: str = "", kinds: Mapping[int, str] = FULL | REFUSED) -> Iterator[None]:
    """Turn errors of writing to a place into `WriteError`; only those of being `FULL` where the block also reads."""
    try:
        yield
    except OSError as error:
        if error.errno not in kinds:
            raise
        raise failure(place, error, needed) from error


@contextmanager
def path_errors_explained() -> Iterator[None]:
    """Raise `ThawError` for an error about a path that nothing within has explained; also a decorator.

    Such as that of a folder that must not be read. What an error without a path is about, it cannot say.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL | REFUSED or not error.filename:
            raise
        if is_full(error):
            raise failure(Path(os.fsdecode(error.filename)), error) from error
        raise ThawError(f"{error.filename}: {REFUSED[error.errno]}") from error
    except ValueError as error:
        if "embedded null" not in str(error):
            raise
        raise ThawError("a path has a null character in it, which no name of a file or folder can have") from error


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """Append what else helps to the sentence of a `WriteError`, such as ", then re-run with --resume"."""
    try:
        yield
    except WriteError as error:
        raise WriteError(error.place, error.problem + advice) from error


def _check_can_make(place: Path, named: Path) -> None:
    """Raise `WriteError`, about the path that the user named, unless something can be made at a place."""
    parent = _existing_parent(place)
    if not parent.is_dir():
        raise WriteError(named, f"cannot be written: {parent} is not a folder; choose another place")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise WriteError(named, f"cannot be written: permission denied in {parent}; choose another place")


def _existing_parent(place: Path) -> Path:
    """The innermost folder of a path that exists."""
    return next((parent for parent in place.absolute().parents if os.path.lexists(parent)), Path())


def _kind_of(place: Path) -> str:
    """What is at a place, unless it is a plain file, as an aside."""
    mode = place.lstat().st_mode
    if stat.S_ISLNK(mode):
        return f" (a link to {place.readlink()})"
    if stat.S_ISDIR(mode):
        return " (a folder)"
    return "" if stat.S_ISREG(mode) else " (a device, pipe or socket)"
