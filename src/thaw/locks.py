"""Locks on open files and folders, which the system releases when their process ends, however it ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def lock(handle: int, file: Path | None = None) -> bool | None:
    """Lock an open file or folder for this process, without waiting.

    Args:
        handle: Of the open file or folder.
        file: Its path, where whoever has the lock removes the file in the end.

    Returns:
        Whether it is locked, which a file that has been removed since it was opened cannot be; `None` where there are
        no such locks: on some network drives, and on Windows, whose locks would keep others from reading.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return file is None or _is_at(handle, file)


def _is_at(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False
