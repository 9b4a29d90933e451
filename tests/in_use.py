"""Files that another program has open, as on Windows."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ACCESS_DENIED, IN_USE = 5, 32


class WindowsError(PermissionError):
    """An error of Windows, whose number Python keeps there."""

    winerror = ACCESS_DENIED


def open_elsewhere(number: int = ACCESS_DENIED) -> WindowsError:
    """What changing a file raises that another program has open."""
    error = WindowsError(errno.EACCES, "Access is denied")
    error.winerror = number
    return error


def on_windows(monkeypatch: pytest.MonkeyPatch, is_open: Callable[[Path], bool]) -> list[str]:
    """Let some files be open in another program, on Windows, without waiting.

    Returns:
        The names of the files that could not be replaced or renamed, one for each attempt, filled as it goes.
    """
    refused: list[str] = []

    def unless_open(change: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        def changed(source: Any, place: Any) -> None:
            for path in map(Path, (source, place)):
                if is_open(path):
                    refused.append(path.name)
                    raise open_elsewhere()
            change(source, place)

        return changed

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(os, "replace", unless_open(os.replace))
    monkeypatch.setattr(os, "rename", unless_open(os.rename))
    return refused
