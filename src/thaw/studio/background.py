"""One job after the other in a thread, and how far the present one is, for those who ask."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from thaw.errors import ThawError
from thaw.progress import OnProgress

Job = Callable[[], None]
Kind = Literal["images", "outlook", "influence", "copy", "export"]
"""Of a job: features and piles of the images; what more labels give; the training images behind predictions; a copy of
the labelled images in class folders; an export."""
_LOG = logging.getLogger("thaw.studio")


@dataclass(frozen=True)
class Status:
    """What the thread is doing.

    Attributes:
        title: The present step; empty if it waits.
        done, total: How far it is.
    """

    title: str = ""
    done: int = 0
    total: int = 0


class Background:
    """A thread for work that takes longer than a reply may.

    Attributes:
        status: What it is doing.
        errors: By kind, why the last job of this kind failed, the latest one last; until another one begins.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Kind, Job] | None] = queue.SimpleQueue()
        self._stops = threading.Event()
        self._thread = threading.Thread(target=self._run, name="thaw-studio", daemon=True)
        self._after = 0.0
        self.status = Status()
        self.errors: Mapping[Kind, str] = {}

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

    def submit(self, kind: Kind, job: Job) -> None:
        """Do a job after those before it."""
        self._jobs.put((kind, job))

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
        while (submitted := self._jobs.get()) and not self._stops.is_set():
            kind, job = submitted
            self.status = Status("working")
            # Replaced, not changed: other threads read it.
            others = self.errors = {other: error for other, error in self.errors.items() if other != kind}
            try:
                job()
            except _Stopped:
                return
            except ThawError as error:
                self.errors = {**others, kind: str(error)}
            except Exception:
                _LOG.exception("a job failed")
                self.errors = {**others, kind: "internal error; see the output of thaw studio"}
            self.status = Status()


class _Stopped(Exception):
    """Studio is being closed."""
