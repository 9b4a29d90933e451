"""Keeps mirrors in the cache equal to remote storage: only new and changed files are downloaded, removed ones go.

A mirror has one entry in the cache for each bucket or server. Its index says which version of each file it has; a line
is appended when the file is complete, so a download that is killed leaves no part of a file and is resumed.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO

from thaw import atomic
from thaw.cache import LARGER_DISK, MIRROR_INDEX
from thaw.errors import DataError, WriteError
from thaw.formats import size
from thaw.in_use import when_closed
from thaw.locks import lock
from thaw.progress import Bar, NullReporter
from thaw.remote.address import host_of, is_remote, local_path, mirror_folder, shown
from thaw.remote.storage import PARALLEL, RemoteFile, Storage
from thaw.temporary import remove_leftovers, temporary
from thaw.writing import advising, explained

SILENT = NullReporter().bar

_PARTS = "parts"
_LOCK = "lock"
_PAUSE = 0.2
"""Seconds between two attempts to lock a mirror that another process updates."""


def mirrored(place: str | Path, bar: Bar = SILENT) -> Path:
    """The mirror of a remote file or folder, made equal to it; a local place as it is.

    Args:
        place: A path, or an address such as s3://bucket/images.
        bar: Shows how many files are downloaded, with the time left.

    Raises:
        PackageError: A package for this storage is missing.
        DataError: There is nothing at the address, access is refused, or the connection is lost.
        WriteError: The disk is full.
    """
    if not is_remote(place):
        return Path(place)
    storage, copy = Storage.at(place), local_path(place)
    with _Mirror.locked(storage.address) as mirror:
        if not storage.is_folder():
            if copy == local_path(host_of(storage.address)):
                raise DataError(f"{storage.address}: is a file outside of any folder; put it into one")
            mirror.update(storage, [storage.file()], bar)
            return copy
        files = storage.files()
        mirror.remove_others(copy, {file.place for file in files})
        mirror.update(storage, files, bar)
    return copy


def mirrored_files(copies: Iterable[Path], bar: Bar = SILENT) -> None:
    """Make the mirrors of some files equal to them; a file that is not on the storage is not in the mirror either.

    Args:
        copies: Paths, of which those in no mirror are left alone.
        bar: Shows how many files are downloaded, with the time left.

    Raises:
        PackageError, DataError, WriteError: As `mirrored`.
    """
    by_host: defaultdict[str, set[Path]] = defaultdict(set)
    for copy in copies:
        copy = Path(os.path.normpath(copy))
        if is_remote(address := shown(copy)):
            by_host[host_of(address)].add(copy)
    for host, wanted in by_host.items():
        storage, root = Storage.at(host), local_path(host)
        folders = sorted({copy.parent.relative_to(root).as_posix() for copy in wanted})
        with ThreadPoolExecutor(PARALLEL) as pool:
            listings = pool.map(storage.files_in, ["" if folder == "." else folder for folder in folders])
            files = [file for listing in listings for file in listing if file.place in wanted]
        with _Mirror.locked(host) as mirror:
            mirror.remove(wanted - {file.place for file in files})
            mirror.update(storage, files, bar)


class _Mirror:
    """The mirror of one bucket or server, while no other process changes it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._index_file = folder, folder / MIRROR_INDEX
        self._versions = dict(_read_index(self._index_file))
        remove_leftovers(folder / _PARTS)

    @classmethod
    @contextmanager
    def locked(cls, address: str) -> Iterator[_Mirror]:
        """The mirror that an address belongs to."""
        folder = mirror_folder(host_of(address))
        with explained(folder):
            (folder / _PARTS).mkdir(parents=True, exist_ok=True)
            with (folder / _LOCK).open("w") as stream:
                # Without locks, on some network drives, two processes download a file twice at worst.
                while lock(stream.fileno()) is False:
                    time.sleep(_PAUSE)
                yield cls(folder)

    def update(self, storage: Storage, files: Sequence[RemoteFile], bar: Bar) -> None:
        """Download those of some files that are new or changed."""
        with advising(LARGER_DISK), explained(self._folder):
            wanted = [file for file in files if not self._has(file)]
            self._check_room(storage, sum(file.size for file in wanted))
            advance = bar(f"download {storage.address}") if wanted else SILENT("")
            with self._index_file.open("a", encoding="utf-8") as index, ThreadPoolExecutor(PARALLEL) as pool:
                futures = {pool.submit(self._download, storage, file): file for file in wanted}
                try:
                    for done, future in enumerate(as_completed(futures), start=1):
                        future.result()
                        self._note(futures[future], index)
                        advance(done, len(wanted))
                finally:
                    pool.shutdown(cancel_futures=True)
            # That it was used now.
            os.utime(self._index_file)

    def remove_others(self, folder: Path, files: set[Path]) -> None:
        """Remove everything from a folder but some files."""
        with explained(self._folder):
            # What was a file on the storage may have become a folder.
            self.remove({place for place in (folder, *folder.parents) if place.is_file()})
            folder.mkdir(parents=True, exist_ok=True)
            self.remove({found for found in folder.rglob("*") if not found.is_dir()} - files)
            for found in sorted(folder.rglob("*"), reverse=True):
                if found.is_dir() and not any(found.iterdir()):
                    found.rmdir()

    def remove(self, copies: set[Path]) -> None:
        """Remove files, which may be missing."""
        removed = [name for copy in copies if self._versions.pop(name := self._name(copy), None)]
        if removed:
            lines = (json.dumps([name, *version]) for name, version in self._versions.items())
            atomic.write_text(self._index_file, "".join(f"{line}\n" for line in lines))
        for copy in copies:
            when_closed(partial(copy.unlink, missing_ok=True))

    def _has(self, file: RemoteFile) -> bool:
        # Without a version nobody knows whether it changed.
        if not file.version or self._versions.get(self._name(file.place)) != (file.size, file.version):
            return False
        try:
            return file.place.stat().st_size == file.size
        except OSError:
            return False

    def _download(self, storage: Storage, file: RemoteFile) -> None:
        with temporary(self._folder / _PARTS / "part", lambda path: path.touch(exist_ok=False)) as part:
            storage.download(file, part)
            file.place.parent.mkdir(parents=True, exist_ok=True)
            when_closed(lambda: os.replace(part, file.place))

    def _note(self, file: RemoteFile, index: TextIO) -> None:
        """Append a file that is complete."""
        version = self._versions[self._name(file.place)] = file.size, file.version
        index.write(f"{json.dumps([self._name(file.place), *version])}\n")
        index.flush()

    def _check_room(self, storage: Storage, needed: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            problem = f"{storage.address} needs {size(needed)}, and {size(free)} are free; free some space"
            raise WriteError(self._folder, problem)

    def _name(self, copy: Path) -> str:
        return copy.relative_to(self._folder).as_posix()


def _read_index(file: Path) -> Iterator[tuple[str, tuple[int, str]]]:
    """The files in an index with their size and version; later lines replace earlier ones."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        try:
            name, length, version = json.loads(line)
        except (ValueError, TypeError):
            # The last line of a process that was killed.
            continue
        yield name, (length, version)
