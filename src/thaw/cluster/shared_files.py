"""Whether two machines see the same files under the same paths, told by their sizes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

_MISSING = -1


def sizes_of(files: Iterable[Path]) -> dict[str, int]:
    """The bytes of each file by its absolute path, or a negative number for one that is missing."""
    return {file: _size(file) for file in map(str, (file.absolute() for file in files))}


def differing(sizes: Mapping[str, int]) -> str:
    """The first file that has another size here, or may not be read here; empty if there is none."""
    for file, size in sizes.items():
        if _size(file) != size or (size != _MISSING and not os.access(file, os.R_OK)):
            return file
    return ""


def _size(file: str) -> int:
    try:
        return Path(file).stat().st_size
    except (OSError, ValueError):
        # A path with a null character is a ValueError.
        return _MISSING
