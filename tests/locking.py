"""Locks that another process would hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thaw.locks import lock


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder within the block; one opened again has it no more than another process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        assert lock(handle)
        yield
    finally:
        os.close(handle)
