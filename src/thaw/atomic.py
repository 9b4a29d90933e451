"""Files and folders that are either whole or absent, whatever happens while they are written.

A *sealed folder* is built under a temporary name beside its place, checksummed, flushed to disk and renamed. One that
was torn, cut short or altered afterwards is told apart when it is opened.
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
    """Replace `file` by `content` in one step; a reader sees the old file or the new one, never a part."""
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
    """Replace `file` by UTF-8 text in one step."""
    write_bytes(file, content.encode("utf-8"))


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; it becomes `folder`, which must not exist, when the block ends well."""
    with _temporary_folder(folder) as temporary:
        yield temporary
        _flush_files(temporary)
        os.replace(temporary, folder)
        _flush_folder(folder.parent)


@contextmanager
def new_file(file: Path) -> Iterator[Path]:
    """Yield a place of the same name to write; it becomes `file`, which must not exist, when the block ends well."""
    with _temporary_folder(file) as temporary:
        yield temporary / file.name
        _flush_files(temporary)
        os.replace(temporary / file.name, file)
        _flush_folder(file.parent)


@contextmanager
def sealed_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; it becomes `folder`, sealed, when the block ends well.

    When another process has made `folder` meanwhile, that one stays and this one is dropped.
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
    """Whether a sealed folder is there and what is in it is as it was sealed.

    A file whose size and time of last change are those of the seal is taken as it is, for a store may be larger than
    memory; of any other the bytes are compared (CRC-32).
    """
    try:
        seal = json.loads((folder / SEAL).read_bytes())
        files = seal["files"]
        return seal["crc32"] == _checksum_of(files) and all(
            _is_as_sealed(folder / name, *facts) for name, facts in files.items()
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


def _is_as_sealed(file: Path, size: int, changed_ns: int, checksum: int) -> bool:
    state = _state(file)
    return state[0] == size and (state[1] == changed_ns or _checksum(file) == checksum)


def _state(file: Path) -> tuple[int, int]:
    """Size in bytes and time of last change in nanoseconds."""
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
    """Drop what killed processes left half-written in `folder` for files and folders called `name`."""
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
    """Flush every file of a folder to disk and list them in order."""
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
