"""Locks on open files and folders, which the system releases when their process ends, however it ends."""

from __future__ import annotations

import sys


def lock(handle: int) -> bool | None:
    """Lock an open file or folder for this process, without waiting.

    Returns:
        Whether it is locked; `None` where there are no such locks: on some network drives, and on Windows, whose locks
        would keep others from reading.
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
    return True
