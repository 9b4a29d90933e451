"""Files and folders that are either complete or absent, even if the process is killed while writing them.

A *sealed folder* is written under a temporary name next to its destination, checksummed, flushed to disk and renamed.
Opening it detects files that were truncated or changed afterwards.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

SEAL = "seal.json"
_CHUNK = 1 << 24


def write_bytes(file: Path, content: bytes) -> None:
    """Replace `file` by `content` atomically: a reader sees the old content or the new, never a part of it."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(file.parent)


def write_text(file: Path, content: str) -> None:
    """Replace `file` by UTF-8 text atomically."""
    write_bytes(file, content.encode("utf-8"))


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; it becomes `folder`, which must not exist, if the block succeeds."""
    with _temporary_folder(folder) as temporary:
        yield temporary
        _flush_files(temporary)
        os.replace(temporary, folder)
        _flush_folder(folder.parent)


@contextmanager
def new_file(file: Path) -> Iterator[Path]:
    """Yield a temporary path to write; it becomes `file`, which must not exist, if the block succeeds."""
    with _temporary_folder(file) as temporary:
        yield temporary / file.name
        _flush_files(temporary)
        os.replace(temporary / file.name, file)
        _flush_folder(file.parent)


@contextmanager
def sealed_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; it becomes `folder`, sealed, if the block succeeds.

    If another process has created `folder` in the meantime, that one is kept and this one discarded.
    """
    with _temporary_folder(folder) as temporary:
        yield temporary
        files = _flush_files(temporary)
        seal = {str(file.relative_to(temporary)): [*_state(file), _checksum(file)] for file in files}
        write_text(temporary / SEAL, json.dumps({"files": seal, "crc32": _checksum_of(seal)}))
        if is_intact(folder):
            return
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
        _flush_folder(folder.parent)


def is_intact(folder: Path) -> bool:
    """Whether a sealed folder exists and its files are unchanged.

    A file with the size and modification time in the seal counts as unchanged, because reading all of a large cache
    would take too long; for any other file the checksum (CRC-32) decides.
    """
    try:
        seal = json.loads((folder / SEAL).read_bytes())
        files = seal["files"]
        return seal["crc32"] == _checksum_of(files) and all(
            _is_unchanged(folder / name, *facts) for name, facts in files.items()
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


def _is_unchanged(file: Path, size: int, modified_ns: int, checksum: int) -> bool:
    state = _state(file)
    return state[0] == size and (state[1] == modified_ns or _checksum(file) == checksum)


def _state(file: Path) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder.parent, glob.escape(folder.name))
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _checksum_of(files: Mapping[str, Sequence[int]]) -> int:
    return zlib.crc32(json.dumps(files, sort_keys=True).encode())


def _checksum(file: Path) -> int:
    checksum = 0
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Remove temporary files and folders for `name` in `folder` that killed processes left behind."""
    for leftover in folder.glob(f".{name}.*.tmp"):
        owner = leftover.name.split(".")[-2]
        if not owner.isdecimal() or _is_alive(int(owner)):
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush_files(folder: Path) -> list[Path]:
    """Flush every file of a folder to disk; returns them in sorted order."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in files:
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())
    return files


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
