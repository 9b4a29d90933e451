"""SHA-256 of image files, by which the caches of pixels and features recognise their content.

Hashing takes about a second per gigabyte and core once the files are in memory. So a digest is remembered with the
size, times and inode of its file, and the file is read again only when one of these has changed. That is exact where
the kernel sets the change time (ctime) of a file at every write and nothing else can: on the file systems of Linux in
`_KEEPS_CHANGE_TIMES`. The modification time is not enough, because archives, containers and cameras set it. On any
other file system each file is read every time.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from thaw import atomic
from thaw.data.reader import current_reader
from thaw.progress import OnProgress

_KEEPS_CHANGE_TIMES = {"btrfs", "ext2", "ext3", "ext4", "f2fs", "nfs", "nfs4", "overlay", "tmpfs", "xfs", "zfs"}
_MOUNTS = Path("/proc/self/mountinfo")

_UNCHANGED_NS = 2_000_000_000
"""A file that changed less than this before it was read may change again without getting another time."""

_DIGITS = 64

FileState = tuple[int, int, int, int]
"""Size, modification time and change time in nanoseconds, and inode."""


def memory_of(root: Path, cache: Path) -> Path:
    """The file of a cache that remembers the digests of the files of a data set, by its root."""
    key = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
    return cache / "pixels" / f"{key}.digests.json"


def digest_files(files: Sequence[Path], memory: Path, workers: int, on_progress: OnProgress) -> list[str]:
    """The SHA-256 of each file as hexadecimal digits, or the reason why it cannot be read.

    Args:
        files: Image files.
        memory: The file that remembers the digests of these and other files; it may be missing.
        workers: Threads that read files.
        on_progress: Called with the files done and their total.
    """
    started, devices = time.time_ns(), _devices_that_keep_change_times()
    states = [_state(file, devices) for file in files]
    remembered = _remembered(memory)
    digests = [_known(remembered, file, state) for file, state in zip(files, states, strict=True)]
    changed = [row for row, digest in enumerate(digests) if not digest]
    done = len(files) - len(changed)
    on_progress(done, len(files))
    for row, digest in zip(changed, current_reader().digests([files[row] for row in changed], workers), strict=True):
        digests[row], done = digest, done + 1
        on_progress(done, len(files))
    if changed:
        _remember(memory, files, states, digests, started)
    return digests


def known_digests(files: Sequence[Path], memory: Path) -> list[str] | None:
    """What `digest_files` returns where it need not read any file, else `None`."""
    devices, remembered, digests = _devices_that_keep_change_times(), _remembered(memory), []
    for file in files:
        digest = _known(remembered, file, _state(file, devices))
        if not digest:
            return None
        digests.append(digest)
    return digests


def _known(remembered: Mapping[str, tuple[FileState, str]], file: Path, state: FileState | None) -> str:
    """The digest of a file that is in the state that is remembered; empty for any other."""
    then, digest = remembered.get(str(file), (None, ""))
    return digest if state and state == then else ""


def state_of(file: Path) -> FileState | None:
    """What changes when a file does, as far as its file system tells; `None` where there is none."""
    status = _status(file)
    return _state_in(status) if status else None


def is_settled(state: FileState, read: int) -> bool:
    """Whether a file in this state before it was read, at a time in nanoseconds, gets another one when it changes."""
    return max(state[1:3]) < read - _UNCHANGED_NS


def _state(file: Path, devices: frozenset[int]) -> FileState | None:
    """What changes when a file does; `None` where that cannot be told."""
    status = _status(file)
    return _state_in(status) if status and status.st_dev in devices else None


def _status(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except (OSError, ValueError):
        return None


def _state_in(status: os.stat_result) -> FileState:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _devices_that_keep_change_times() -> frozenset[int]:
    """The devices of the file systems of Linux in `_KEEPS_CHANGE_TIMES`; none on another system."""
    if sys.platform == "win32":
        return frozenset()
    try:
        mounts = [line.split() for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return frozenset()
    devices = set()
    for fields in mounts:
        # ... major:minor ... - type source options; the times in a read-only image are those that its maker chose.
        kind, _, options = fields[fields.index("-") + 1 :][:3]
        if kind in _KEEPS_CHANGE_TIMES and "ro" not in options.split(","):
            devices.add(os.makedev(*map(int, fields[2].split(":"))))
    return frozenset(devices)


def _remembered(memory: Path) -> dict[str, tuple[FileState, str]]:
    """By path, the state and digest of each file at the last time."""
    rows = atomic.read_checked(memory)
    return {file: (tuple(state), digest) for file, (state, digest) in rows.items()} if isinstance(rows, dict) else {}


def _remember(
    memory: Path, files: Sequence[Path], states: Sequence[FileState | None], digests: Sequence[str], started: int
) -> None:
    """Write what can be relied on later: not what may change in the same instant, or be readable in the next.

    What is remembered of other files stays, for as long as they exist.
    """
    own = set(map(str, files))
    # Read again: another process may have written meanwhile.
    others = {file: row for file, row in _remembered(memory).items() if file not in own and Path(file).exists()}
    reliable = {
        str(file): (state, digest)
        for file, state, digest in zip(files, states, digests, strict=True)
        if state and is_settled(state, started) and len(digest) == _DIGITS
    }
    atomic.write_checked(memory, others | reliable)
