"""One job after the other in a thread, and how far the present one is, for those who ask."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from thaw.errors import ThawError
from thaw.progress import OnProgress

Job = Callable[[], None]
_LOG = logging.getLogger("thaw.studio")


@dataclass(frozen=True)
class Status:
    """What the thread is doing.

    Attributes:
        title: The present step; empty if it waits.
        done, total: How far it is.
        error: Why the last job failed; empty if it did not.
    """

    title: str = ""
    done: int = 0
    total: int = 0
    error: str = ""


class Background:
    """A thread for work that takes longer than a reply may."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._stops = threading.Event()
        self._thread = threading.Thread(target=self._run, name="thaw-studio", daemon=True)
        self._after = 0.0
        self.status = Status()

    def start(self, after: float = 0.0) -> None:
        """Begin with the jobs, after some seconds."""
        self._after = after
        self._thread.start()

    def stop(self) -> None:
        """Take no further job, and end the present one at its next step; does not wait for long."""
        self._stops.set()
        self._jobs.put(None)
        if self._thread.is_alive():
            self._thread.join(1)

    def submit(self, job: Job) -> None:
        """Do a job after those before it."""
        self._jobs.put(job)

    def bar(self, title: str) -> OnProgress:
        """A progress bar, which those who ask for the status see."""
        self.status = Status(title)

        def advance(done: int, total: int) -> None:
            if self._stops.is_set():
                raise _Stopped
            self.status = Status(title, done, total)

        return advance

    def _run(self) -> None:
        self._stops.wait(self._after)
        while (job := self._jobs.get()) and not self._stops.is_set():
            self.status = Status("working")
            try:
                job()
            except _Stopped:
                return
            except ThawError as error:
                self.status = Status(error=str(error))
            except Exception:
                _LOG.exception("a job failed")
                self.status = Status(error="internal error; see the output of thaw studio")
            else:
                self.status = Status()


class _Stopped(Exception):
    """Studio is being closed."""
