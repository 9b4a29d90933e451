"""Writing while training goes on, in one thread and in the order in which it was asked for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundWrites:
    """Writes what it is given, one after the other; after a write that failed nothing is written any more.

    A checkpoint is mostly waited for: until the disk has it, four times. On a machine with a GPU that took as long as
    the epoch before it.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._pending: list[Future[None]] = []
        self._failed = False

    def submit(self, write: Callable[[], None]) -> None:
        """Write soon."""
        self._pending.append(self._thread.submit(self._unless_failed, write))

    def wait(self) -> None:
        """Wait until everything is written; raises the error of the write that failed."""
        pending, self._pending = self._pending, []
        for each in pending:
            each.result()

    def _unless_failed(self, write: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            write()
        except BaseException:
            self._failed = True
            raise
