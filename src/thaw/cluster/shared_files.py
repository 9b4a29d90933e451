"""Whether two machines see the same files under the same paths, told by their sizes, or by their times as well."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

State = int | tuple[int, int]
"""The bytes of a file, or these and its modification time in nanoseconds; a negative number for one that is missing."""

_MISSING = -1


def sizes_of(files: Iterable[Path]) -> dict[str, int]:
    """The bytes of each file by its absolute path, or a negative number for one that is missing."""
    return {file: _size(file) for file in map(str, (file.absolute() for file in files))}


def states_of(files: Iterable[Path]) -> dict[str, State]:
    """The bytes and the modification time of each file by its absolute path."""
    return {file: _state(file) for file in map(str, (file.absolute() for file in files))}


def differing(known: Mapping[str, State]) -> str:
    """The first file that has another size or time here, or may not be read here; empty if there is none."""
    for file, state in known.items():
        here = _state(file) if isinstance(state, tuple) else _size(file)
        if here != state or (state != _MISSING and not os.access(file, os.R_OK)):
            return file
    return ""


def _size(file: str) -> int:
    state = _state(file)
    return state[0] if isinstance(state, tuple) else state


def _state(file: str) -> State:
    try:
        status = Path(file).stat()
    except (OSError, ValueError):
        # A path with a null character is a ValueError.
        return _MISSING
    return status.st_size, status.st_mtime_ns
