"""Work that is stopped again and again at a write of a file, as if its process had been killed, until it is done."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from thaw import atomic

T = TypeVar("T")


class Stopped(BaseException):
    """The process ends here."""


def done_despite_stops(
    work: Callable[[], T],
    folder: Path,
    writes: Iterator[int],
    monkeypatch: pytest.MonkeyPatch,
    counts: Callable[[], bool] = lambda: True,
    is_done: Callable[[], bool] = lambda: False,
) -> tuple[T | None, int]:
    """Do some work anew each time that it was stopped.

    Args:
        work: Done or resumed by each call.
        folder: It is stopped at a write into this folder.
        writes: After how many of them, each time.
        monkeypatch: Of the test.
        counts: Whether they count now.
        is_done: Whether work that was stopped is done all the same.

    Returns:
        What the work gives, `None` if it was stopped at last, and how many times it was.
    """
    write, left, stops = atomic.write_bytes, next(writes), 0

    def write_or_stop(file: Path, content: bytes) -> None:
        nonlocal left
        left -= counts() and folder in file.parents
        if left < 0:
            raise Stopped
        write(file, content)

    monkeypatch.setattr(atomic, "write_bytes", write_or_stop)
    while True:
        try:
            return work(), stops
        except Stopped:
            stops += 1
            left = next(writes)
            if is_done():
                return None, stops
