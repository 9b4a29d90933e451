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
from collections.abc import Sequence
from pathlib import Path

from thaw import atomic
from thaw.data.reader import current_reader
from thaw.progress import OnProgress

_KEEPS_CHANGE_TIMES = {"btrfs", "ext2", "ext3", "ext4", "f2fs", "nfs", "nfs4", "overlay", "tmpfs", "xfs", "zfs"}
_MOUNTS = Path("/proc/self/mountinfo")

_UNCHANGED_NS = 2_000_000_000
"""A file that changed less than this before it was read may change again without getting another time."""

_DIGITS = 64

_State = tuple[int, int, int, int]
"""Size, modification time and change time in nanoseconds, and inode."""


def memory_of(files: Sequence[Path], cache: Path) -> Path:
    """The file of a cache that remembers the digests of exactly these files."""
    key = hashlib.sha256("\0".join(map(str, files)).encode()).hexdigest()[:32]
    return cache / "pixels" / f"{key}.digests.json"


def digest_files(files: Sequence[Path], memory: Path, workers: int, on_progress: OnProgress) -> list[str]:
    """The SHA-256 of each file as hexadecimal digits, or the reason why it cannot be read.

    Args:
        files: Image files.
        memory: The file that remembers the digests of exactly these files; it may be missing.
        workers: Threads that read files.
        on_progress: Called with the files done and their total.
    """
    started, devices = time.time_ns(), _devices_that_keep_change_times()
    states = [_state(file, devices) for file in files]
    remembered = _remembered(memory, len(files))
    digests = [digest for _, digest in remembered]
    changed = [row for row, state in enumerate(states) if not state or state != remembered[row][0]]
    done = len(files) - len(changed)
    on_progress(done, len(files))
    for row, digest in zip(changed, current_reader().digests([files[row] for row in changed], workers), strict=True):
        digests[row], done = digest, done + 1
        on_progress(done, len(files))
    if changed:
        _remember(memory, states, digests, started)
    return digests


def known_digests(files: Sequence[Path], memory: Path) -> list[str] | None:
    """What `digest_files` returns where it need not read any file, else `None`."""
    devices, remembered = _devices_that_keep_change_times(), _remembered(memory, len(files))
    is_known = all(state and state == _state(file, devices) for file, (state, _) in zip(files, remembered, strict=True))
    return [digest for _, digest in remembered] if is_known else None


def _state(file: Path, devices: frozenset[int]) -> _State | None:
    """What changes when a file does; `None` where that cannot be told."""
    try:
        status = file.stat()
    except (OSError, ValueError):
        return None
    if status.st_dev not in devices:
        return None
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


def _remembered(memory: Path, files: int) -> list[tuple[_State | None, str]]:
    """The state and digest of each file at the last time, the state `None` where the file has to be read again."""
    rows = atomic.read_checked(memory)
    if rows is None or len(rows) != files:
        return [(None, "")] * files
    return [(state and tuple(state), digest) for state, digest in rows]


def _remember(memory: Path, states: Sequence[_State | None], digests: Sequence[str], started: int) -> None:
    """Write what can be relied on later: not what may change in the same instant, or be readable in the next."""
    reliable = [
        state if state and max(state[1:3]) < started - _UNCHANGED_NS and len(digest) == _DIGITS else None
        for state, digest in zip(states, digests, strict=True)
    ]
    atomic.write_checked(memory, list(zip(reliable, digests, strict=True)))
