from __future__ import annotations

import threading
from functools import partial

import pytest

from thaw.training.background import BackgroundWrites


def test_what_is_asked_for_is_written_in_order_while_others_go_on() -> None:
    writes, written, go_on = BackgroundWrites(), list[int](), threading.Event()
    writes.submit(partial(go_on.wait, 30))  # type: ignore[arg-type]
    for number in range(5):
        writes.submit(partial(written.append, number))
    assert not written
    go_on.set()
    writes.wait()
    assert written == [0, 1, 2, 3, 4]


def test_after_a_write_that_failed_nothing_is_written() -> None:
    def fail() -> None:
        raise OSError("full")

    writes, written = BackgroundWrites(), list[str]()
    writes.submit(partial(written.append, "before"))
    writes.submit(fail)
    writes.submit(partial(written.append, "after"))
    with pytest.raises(OSError, match="full"):
        writes.wait()
    writes.submit(partial(written.append, "later"))
    writes.wait()
    assert written == ["before"]
