"""Files that another program has open, which on Windows can be neither replaced nor removed until it closes them.

Virus scanners, indexers and programs that synchronise folders open what was just written, for a moment. Excel keeps a
table open for as long as somebody looks at it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

IN_USE = "is open in another program, such as Excel"
"""What is said of a file that is open elsewhere."""

_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.0, 1.0, 1.0)
"""Seconds between two attempts, about five in all."""

_ACCESS_DENIED, _SHARING = 5, (32, 33)
"""Errors of Windows, the first also where something must not be written."""


def when_closed(change: Callable[[], T]) -> T:
    """Change a file or folder, which on Windows is tried again for some seconds while another program has it open.

    Args:
        change: Replaces, renames, removes or opens it; tried once on other systems.

    Returns:
        What the change returns.

    Raises:
        OSError: What its last attempt raised.
    """
    for pause in _PAUSES if sys.platform == "win32" else ():
        try:
            return change()
        except PermissionError:
            time.sleep(pause)
    return change()


def is_open_elsewhere(file: Path) -> bool:
    """Whether another program has a file open, so that it cannot be replaced; never but on Windows."""
    if sys.platform != "win32":
        return False
    try:
        file.rename(file)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def is_in_use(error: BaseException | None) -> bool:
    """Whether an error of Windows says that something is open in another program, or must not be written."""
    return getattr(error, "winerror", None) in (_ACCESS_DENIED, *_SHARING)
