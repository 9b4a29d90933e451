"""Temporary files and folders: made next to what they will become, locked while in use, removed when left over.

Their names are random: processes in two containers may have the same id. A lock ends with its process, however that
ends, and other containers on the same volume see it. Where the file system has no locks, age decides.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import secrets
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from thaw.in_use import when_closed
from thaw.locks import lock

LEFT_OVER_AFTER = 24 * 3600
"""Seconds without a change after which what cannot be locked counts as left over."""

_NAME = re.compile(r"\..+\.[0-9a-f]{16}\.tmp", re.DOTALL)
_UNOPENED = (errno.ELOOP, errno.EACCES)
"""Errors of opening links, and files that may not be read: they have no lock."""

_LONGEST = 200
"""Bytes of a name that is kept whole, so that the temporary name stays below 255."""


@contextmanager
def temporary(place: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """Yield a new path next to `place`, made by `make`; what is still there at the end of the block is removed."""
    while True:
        path = place.with_name(f".{_short(place.name)}.{secrets.token_hex(8)}.tmp")
        make(path)
        with _locked(path) as is_locked:
            # Before it was locked it may have been taken for a leftover.
            if is_locked is False:
                continue
            try:
                yield path
            finally:
                _remove(path)
            return


def remove_leftovers(folder: Path, name: str | None = None) -> list[Path]:
    """Remove temporary files and folders in `folder`, of all names or one, that killed processes left behind.

    Returns:
        Those that cannot be removed.
    """
    pattern, left = "*" if name is None else glob.escape(_short(name)), []
    for path in folder.glob(f".{pattern}.*.tmp"):
        with suppress(OSError), _locked(path) as is_locked:
            # Releases with other names did not lock.
            has_ended = is_locked and _NAME.fullmatch(path.name)
            if has_ended or (is_locked is not False and time.time() - _last_change(path) > LEFT_OVER_AFTER):
                _remove(path)
                left += [path] if os.path.lexists(path) else []
    return left


def discard(path: Path, is_kept: Callable[[Path], bool] = lambda _: False) -> Path | None:
    """Remove a file or folder in one step, so that nobody sees a part of it; does nothing where there is none.

    Args:
        path: The file or folder.
        is_kept: Whether it must stay, asked while no other process discards it, where the file system has locks.

    Returns:
        What is left of it; `None` where nothing is, and where another process is discarding it, or has only just made
        it: it is left to that one.
    """
    with suppress(OSError), _locked(path) as is_locked:
        if is_locked is False:
            return None
        if not is_kept(path):
            hidden = path.with_name(f".{_short(path.name)}.{secrets.token_hex(8)}.tmp")
            when_closed(lambda: os.replace(path, hidden))
            _remove(hidden)
            return hidden if os.path.lexists(hidden) else None
    return path if os.path.lexists(path) else None


@contextmanager
def _locked(path: Path) -> Iterator[bool | None]:
    """Yield whether this process holds the lock of a file or folder, which may be gone: `None` if it has no lock."""
    if sys.platform == "win32":
        yield None
        return
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        yield False
        return
    except OSError as error:
        if error.errno not in _UNOPENED:
            raise
        yield None
        return
    try:
        is_locked = lock(handle)
        # Until it was locked, another may have been put in its place.
        yield is_locked if _is_at(path, handle) else False
    finally:
        os.close(handle)


def _is_at(path: Path, handle: int) -> bool:
    """Whether what is open is still what is at a path."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _short(name: str) -> str:
    """A name, or for a long one its beginning and a checksum."""
    content = os.fsencode(name)
    return name if len(content) <= _LONGEST else f"{name[: _LONGEST // 5]}~{zlib.crc32(content):08x}"


def _last_change(path: Path) -> float:
    """When anything at a path was changed, in seconds since 1970."""
    return max(item.lstat().st_mtime for item in (path, *path.rglob("*")))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        when_closed(lambda: path.unlink(missing_ok=True))
