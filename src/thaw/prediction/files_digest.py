"""Whether the files that a prediction job has classified are still the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from thaw.prediction.inputs import printable


class FilesDigest:
    """SHA-256 of a growing sequence of files: their paths, sizes and modification times.

    Content would have to be read again, which takes as long as classifying it.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, files: Iterable[Path]) -> None:
        """Append files, which may be missing."""
        for file in files:
            try:
                status = file.stat()
                state = f"{status.st_size} {status.st_mtime_ns}"
            except (OSError, ValueError):
                state = ""
            self._hash.update(f"{printable(file)}\0{state}\0".encode())

    @property
    def digest(self) -> str:
        """The digest of all files so far."""
        return self._hash.hexdigest()
