"""One process at a time trains a run, or conducts a search: a lock that the system releases when the process ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thaw.errors import ResumeError
from thaw.locks import lock

LOCK = ".lock"

_TRAINING = "another process is training this run; wait until it has ended"


@contextmanager
def held(folder: Path, problem: str = _TRAINING) -> Iterator[None]:
    """Keep other processes from a run or a search within the block.

    Where the file system has no locks, as on some network drives, nothing is kept.

    Args:
        folder: Of the run or the search.
        problem: What is wrong where another process has it.

    Raises:
        ResumeError: Another process has it.
    """
    file = folder / LOCK
    with file.open("ab") as stream:
        if not _is_free(stream.fileno(), file):
            raise ResumeError(f"{folder}: {problem}")
        try:
            yield
        finally:
            # Windows removes no file that is open.
            if sys.platform != "win32":
                file.unlink(missing_ok=True)


def _is_free(handle: int, file: Path) -> bool:
    """Whether no other process holds the lock, which this one takes."""
    if sys.platform != "win32":
        return lock(handle, file) is not False
    import msvcrt

    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True
