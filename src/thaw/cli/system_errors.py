"""Errors of the system that nothing below has explained, such as a folder that must not be read: one sentence each."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thaw.errors import ThawError
from thaw.writing import FULL, REFUSED, failure, is_full


@contextmanager
def system_errors_explained() -> Iterator[None]:
    """Raise `ThawError` for an error about a path or a full disk, also where standard output cannot be written."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in FULL | REFUSED:
            raise
        if error.filename and not is_full(error):
            raise ThawError(f"{error.filename}: {REFUSED[error.errno]}") from error
        if error.filename:
            raise failure(Path(os.fsdecode(error.filename)), error) from error
        raise failure(_unnamed(), error) from error


def _unnamed() -> Path:
    """What an error without a path is about; a line that was refused at once does not fail again."""
    try:
        sys.stdout.flush()
    except OSError:
        # Python would write what is left of it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Path("standard output")
    return Path("standard output or a file")
