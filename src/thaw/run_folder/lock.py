"""One process at a time trains a run: a lock that the system releases when the process ends, however it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, EAGAIN, EDEADLK
from pathlib import Path

from thaw.errors import ResumeError

LOCK = ".lock"


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Keep other processes from training a run within the block; raises `ResumeError` where one trains it already.

    Where the file system has no locks, as on some network drives, nothing is kept.
    """
    file = run / LOCK
    with file.open("ab") as stream:
        try:
            _lock(stream.fileno())
        except OSError as error:
            if error.errno in (EACCES, EAGAIN, EDEADLK):
                raise ResumeError(f"{run}: another process is training this run; wait until it has ended") from error
        try:
            yield
        finally:
            # Windows removes no file that is open.
            if sys.platform != "win32":
                file.unlink(missing_ok=True)


def _lock(handle: int) -> None:
    """Lock an open file, or raise `OSError` at once."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
