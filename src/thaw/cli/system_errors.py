"""Errors of the system that nothing below has explained, such as a folder that must not be read: one sentence each."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thaw.writing import FULL, REFUSED, failure, path_errors_explained


@contextmanager
def system_errors_explained() -> Iterator[None]:
    """Raise `ThawError` for an error about a path or a full disk, also where standard output cannot be written.

    A command whose output nobody reads any more, such as after `q` in `more`, ends without a word.
    """
    try:
        with path_errors_explained():
            try:
                yield
            finally:
                sys.stdout.flush()
    except OSError as error:
        if _is_closed_pipe(error):
            raise SystemExit(1) from None
        if error.errno not in FULL | REFUSED:
            raise
        raise failure(_unnamed(), error) from error


def _unnamed() -> Path:
    """What an error without a path is about; a line that was refused at once does not fail again."""
    return Path("standard output" if _fails_to_print("") else "standard output or a file")


def _is_closed_pipe(error: OSError) -> bool:
    """Whether an error is that the program which read standard output has ended."""
    # Windows has no error of its own for it: this one is also that of a wrong argument.
    kinds = {errno.EPIPE, errno.EINVAL} if sys.platform == "win32" else {errno.EPIPE}
    return error.errno in kinds and not error.filename and _fails_to_print("\n")


def _fails_to_print(text: str) -> bool:
    """Whether standard output takes neither this nor what is left to be written; it is dropped then."""
    try:
        print(end=text, flush=True)
    except OSError:
        # Python would write what is left of it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
