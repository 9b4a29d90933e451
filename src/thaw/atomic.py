"""Files and folders that are either complete or absent, even if the process is killed while writing them.

A *sealed folder* is written under a temporary name next to its destination, checksummed, flushed to disk and renamed.
Opening it detects files that were truncated or changed afterwards. Where something cannot be written, the error is a
`WriteError` that names the destination.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from thaw.errors import WriteError
from thaw.formats import size
from thaw.in_use import when_closed
from thaw.temporary import discard, remove_leftovers, temporary
from thaw.writing import FULL, check_new, explained

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

SEAL = "seal.json"
SMALL = 1 << 24
"""Bytes up to which a file of a sealed folder is read whole to see that it is unchanged, which takes milliseconds."""

_CHUNK = 1 << 24
_ATTEMPTS = 8
_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
"""Errors of renaming a folder to a place where something was; by now another process may have removed it."""


def write_bytes(file: Path, content: bytes) -> None:
    """Replace `file` by `content` atomically: a reader sees the old content or the new, never a part of it."""
    with replacing(file, f"{size(len(content))} needed") as path:
        path.write_bytes(content)


def write_text(file: Path, content: str) -> None:
    """Replace `file` by UTF-8 text atomically."""
    write_bytes(file, content.encode("utf-8"))


def write_checked(file: Path, content: Any) -> None:
    """Replace `file` by JSON with its checksum, atomically; its folder is made if needed."""
    with explained(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"content": content, "crc32": _checksum_of(content)}))


def read_checked(file: Path) -> Any | None:
    """What `write_checked` wrote; `None` where the file is absent or damaged."""
    try:
        read = json.loads(file.read_bytes())
        return read["content"] if read["crc32"] == _checksum_of(read["content"]) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_new(file: Path, content: bytes) -> None:
    """Write a file that must not exist, atomically."""
    check_new(file)
    write_bytes(file, content)


@contextmanager
def replacing(file: Path, needed: str = "") -> Iterator[Path]:
    """Yield a temporary path to write; it replaces `file`, if the block succeeds."""
    with explained(file, needed), temporary(file, lambda path: path.touch(exist_ok=False)) as path:
        yield path
        _flush_file(path)
        when_closed(lambda: os.replace(path, file))
        flush_folder(file.parent)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; it becomes `folder`, which must not exist, if the block succeeds."""
    check_new(folder)
    with _temporary_folder(folder) as building:
        yield building
        with explained(folder):
            _flush_files(building)
            check_new(folder)
            when_closed(lambda: os.replace(building, folder))
            flush_folder(folder.parent)


@contextmanager
def new_file(file: Path) -> Iterator[Path]:
    """Yield a temporary path to write; it becomes `file`, which must not exist, if the block succeeds."""
    check_new(file)
    with _temporary_folder(file) as building:
        yield building / file.name
        with explained(file):
            _flush_files(building)
            check_new(file)
            when_closed(lambda: os.replace(building / file.name, file))
            flush_folder(file.parent)


@contextmanager
def summing(file: Path, checksums: dict[Path, int]) -> Iterator[BinaryIO]:
    """Yield a new file to write from its beginning to its end, and then note its checksum for `sealed_folder`."""
    with _SummingFile(io.FileIO(file, "w")) as stream:
        yield stream
    checksums[file] = stream.checksum


@contextmanager
def sealed_folder(folder: Path, needed: str = "", checksums: Mapping[Path, int] | None = None) -> Iterator[Path]:
    """Yield a temporary folder to fill; it becomes `folder`, sealed, if the block succeeds.

    If another process has created `folder` in the meantime, that one is kept and this one discarded. `needed` is said
    where the disk is full. Files whose checksums `summing` has noted by the end of the block are not read again for
    them, which takes minutes for a large cache.
    """
    with _temporary_folder(folder, needed) as building:
        yield building
        with explained(folder, needed):
            files, known = _flush_files(building), checksums or {}
            sums = [known[file] if file in known else _checksum(file) for file in files]
            facts = zip(files, sums, strict=True)
            seal = {str(file.relative_to(building)): [*_state(file), checksum] for file, checksum in facts}
            write_text(building / SEAL, json.dumps({"files": seal, "crc32": _checksum_of(seal)}))
            _publish(building, folder)


def mark_used(folder: Path) -> None:
    """Note that a sealed folder is used now, where it can be noted."""
    with suppress(OSError):
        os.utime(folder / SEAL)


def is_intact(folder: Path) -> bool:
    """Whether a sealed folder exists and its files are unchanged.

    The checksum (CRC-32) decides. Only for a file larger than `SMALL` with the size and modification time in the seal
    it is not computed, because reading all of a large cache would take too long.
    """
    try:
        seal = json.loads((folder / SEAL).read_bytes())
        files = seal["files"]
        return seal["crc32"] == _checksum_of(files) and all(
            _is_unchanged(folder / name, *facts) for name, facts in files.items()
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


def _is_unchanged(file: Path, length: int, modified_ns: int, checksum: int) -> bool:
    state = _state(file)
    is_trusted = length > SMALL and state[1] == modified_ns
    return state[0] == length and (is_trusted or _checksum(file) == checksum)


def _state(file: Path) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns


@contextmanager
def _temporary_folder(folder: Path, needed: str = "") -> Iterator[Path]:
    """Yield a temporary folder next to `folder`; a full disk is explained while it is filled."""
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder.parent, folder.name)
    with explained(folder, needed, FULL), _made(folder) as building:
        yield building


@contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; an error of writing into it names `folder` instead."""

    def make(path: Path) -> None:
        with explained(folder):
            path.mkdir()

    with temporary(folder, make) as building:
        try:
            yield building
        except WriteError as error:
            is_inside = building in (error.place, *error.place.parents)
            raise WriteError(folder if is_inside else error.place, error.problem) from error
        except FileNotFoundError as error:
            if building.exists():
                raise
            raise WriteError(folder, "was removed while it was being written; run again") from error


def _publish(building: Path, folder: Path) -> None:
    """Rename a finished folder, unless an intact one is there; other processes may do the same at the same time."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            when_closed(lambda: _rename_to_free(building, folder))
        except OSError as error:
            was_there = error.errno in _OCCUPIED or os.path.lexists(folder)
            if is_intact(folder):
                return
            if attempt == _ATTEMPTS or not was_there:
                raise
            discard(folder, is_kept=is_intact)
            time.sleep(0.001 * 2**attempt)
        else:
            flush_folder(folder.parent)
            return


class _SummingFile(io.BufferedWriter):
    """A file that computes the checksum of what is written to it."""

    checksum = 0

    def write(self, data: ReadableBuffer, /) -> int:
        self.checksum = zlib.crc32(data, self.checksum)
        return super().write(data)


def _rename_to_free(building: Path, folder: Path) -> None:
    """Rename a folder; where one is already, Windows would deny access as if a file in it were open elsewhere."""
    if sys.platform == "win32" and os.path.lexists(folder):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
    os.replace(building, folder)


def _checksum_of(content: Any) -> int:
    """CRC-32 of what JSON can express."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _checksum(file: Path) -> int:
    checksum = 0
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def _flush_files(folder: Path) -> list[Path]:
    """Flush every file of a folder to disk; returns them in sorted order."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in files:
        _flush_file(file)
    return files


def _flush_file(file: Path) -> None:
    with when_closed(lambda: file.open("rb+")) as stream:
        os.fsync(stream.fileno())


def flush_folder(folder: Path) -> None:
    """Make new and renamed files of a folder survive a loss of power."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
