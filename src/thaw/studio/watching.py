"""A folder whose new images are classified as they arrive, the newest first; nothing in it is changed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.data.image_file import read_image_file
from thaw.data.walk import Omitted, files_below, printable, suffix_of
from thaw.errors import ThawError, UnreadableImage, first_line
from thaw.prediction.inputs import CANDIDATES

if TYPE_CHECKING:
    from thaw.studio.run_classifier import TriedImage

KEPT = 24
"""Images of which the result is kept."""
UNCHANGED_FOR, UNREADABLE_AFTER = 1.0, 5.0
"""Seconds that a file has to stay as it is before it is read, and before it is called unreadable: until then it may be
half-written."""

_SERVED_FOR = 1.0
"""Seconds at least for which the files that one look finds are classified before the next look, which takes as long
as the folder is large: a newer file waits as long, but would not be complete before."""

_PAUSE, _PAUSE_FACTOR = 0.5, 10
"""Seconds between two looks at a folder where nothing arrives, and how many times as long as a look they are at
least."""
_LOG = logging.getLogger("thaw.studio")

Classify = Callable[[bytes], "TriedImage"]
_Version = tuple[int, int]
"""Size and time of the last change of a file: those of one that is written again differ."""


@dataclass(frozen=True)
class Arrival:
    """An image that has arrived.

    Attributes:
        number: Counts the images as they are classified, from 1 on.
        arrived: When it was as it is for the first time, in seconds of the clock of the watch.
        name: Of the file, relative to the folder.
        tried: What the classifier says; `None` for a file that cannot be read.
        reason: Why it cannot be read.
    """

    number: int
    arrived: float
    name: str
    tried: TriedImage | None
    reason: str = ""


@dataclass
class _Waiting:
    """A file that is not read yet: its content, and since when it is as it is."""

    version: _Version
    since: float
    problem: str = ""


class Watch:
    """What arrives in one folder and the folders in it; `step` does one round.

    Attributes:
        before: How many files were there when it began, which are not classified.
        arrivals: The images that arrived last, the newest first.
        classified, flagged, unreadable: How many images so far.
        problem: Why the folder cannot be listed, or its images cannot be classified now; empty if they can.
    """

    def __init__(self, folder: Path, classify: Classify) -> None:
        """Begin to watch a folder; raises `DataError` where it cannot be listed."""
        self._folder, self._classify = folder, classify
        self._done = self._versions()
        self._waiting: dict[str, _Waiting] = {}
        self._ready: list[str] = []
        self._next_look = self._look_seconds = 0.0
        self.classified = self.flagged = self.unreadable = 0
        self.before = len(self._done)
        self.arrivals: tuple[Arrival, ...] = ()
        self.problem = ""

    @property
    def waiting(self) -> int:
        """How many files have arrived that are not classified yet."""
        return len(self._waiting)

    @property
    def pause(self) -> float:
        """Seconds to wait after a file was classified, so that looking takes half of the time at most."""
        return 0.0 if self._ready else self._look_seconds

    def step(self, now: float) -> bool:
        """Classify the newest file that is complete, of those that the last look found, or look what has arrived.

        Args:
            now: Seconds of a clock that never goes back.

        Returns:
            Whether one was classified, so that another may follow at once.

        Raises:
            DataError: The folder cannot be listed now.
        """
        if not self._ready or now >= self._next_look:
            self._look(now)
        while self._ready:
            if self._settle(self._ready.pop(), now):
                return True
        return False

    def _look(self, now: float) -> None:
        """Find what has arrived, and which files are complete, the newest last."""
        began = time.monotonic()
        versions = self._versions()
        self._note(versions, now)
        ready = [name for name, one in self._waiting.items() if now - one.since >= UNCHANGED_FOR]
        self._ready = sorted(ready, key=lambda name: (self._waiting[name].since, versions[name][1], name))
        self._look_seconds = time.monotonic() - began
        self._next_look = now + self._look_seconds + max(_SERVED_FOR, self._look_seconds)

    def _note(self, versions: dict[str, _Version], now: float) -> None:
        """Remember since when each file that is not classified is as it is."""
        # One that was removed is new when it comes back.
        self._done = {name: version for name, version in self._done.items() if name in versions}
        self._waiting = {name: one for name, one in self._waiting.items() if name in versions}
        for name, version in versions.items():
            if self._done.get(name) == version:
                self._waiting.pop(name, None)
            elif name not in self._waiting or self._waiting[name].version != version:
                self._waiting[name] = _Waiting(version, now)

    def _settle(self, name: str, now: float) -> bool:
        """Classify a file, or find that it cannot be read; false where it may be half-written."""
        waiting, file, tried = self._waiting[name], self._folder / name, None
        if waiting.problem and now - waiting.since < UNREADABLE_AFTER:
            return False
        try:
            data = read_image_file(file)
            # Written on meanwhile: what was read may be a part of it.
            if _version(file) != waiting.version:
                return False
            tried = self._classify(data)
        except UnreadableImage as error:
            waiting.problem = first_line(error)
            # One that was removed or written again since the look is another, or none.
            if now - waiting.since < UNREADABLE_AFTER or _version(file) != waiting.version:
                return False
        self._count(tried)
        number = self.classified + self.unreadable
        arrival = Arrival(number, waiting.since, printable(name), tried, "" if tried else waiting.problem)
        # Behind those that arrived later, which are classified before it.
        known = sorted((*self.arrivals, arrival), key=lambda one: (one.arrived, -one.number), reverse=True)
        self.arrivals = tuple(known[:KEPT])
        self._done[name] = waiting.version
        del self._waiting[name]
        return True

    def _count(self, tried: TriedImage | None) -> None:
        if tried is None:
            self.unreadable += 1
            return
        self.classified += 1
        self.flagged += bool(tried.prediction.review)

    def _versions(self) -> dict[str, _Version]:
        """The files that may be images."""
        names = (name for name in files_below(self._folder, Omitted()) if suffix_of(name) in CANDIDATES)
        found = {name: _version(self._folder / name) for name in names}
        return {name: version for name, version in found.items() if version}


@dataclass(frozen=True)
class Watched:
    """What is watched: a folder, with a run, and what has arrived; `number` counts the starts."""

    number: int
    folder: Path
    run: str
    watch: Watch


class Watching:
    """Watches at most one folder in a thread; its methods can be called from any thread.

    Attributes:
        now: What is watched; `None` if nothing is.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._starts = 0
        self.now: Watched | None = None

    def start(self, folder: Path, run: str, classify: Classify) -> None:
        """Watch a folder with a run, instead of what is watched now; raises `DataError` where it cannot be listed."""
        watch = Watch(folder, classify)
        with self._guard:
            self._ended.set()
            self._ended = threading.Event()
            self._starts += 1
            self.now = Watched(self._starts, folder, run, watch)
            threading.Thread(target=_watch, args=(watch, self._ended), name="thaw-studio-watch", daemon=True).start()

    def stop(self) -> None:
        """Watch nothing."""
        with self._guard:
            self._ended.set()
            self.now = None


def _watch(watch: Watch, ended: threading.Event) -> None:
    while not ended.is_set():
        began = time.monotonic()
        try:
            is_followed = watch.step(began)
            watch.problem = ""
        except ThawError as error:
            is_followed, watch.problem = False, first_line(error)
        except Exception:
            _LOG.exception("a watched image failed")
            is_followed, watch.problem = False, "internal error; see the output of thaw studio"
        pause = watch.pause if is_followed else max(_PAUSE, _PAUSE_FACTOR * (time.monotonic() - began))
        ended.wait(pause)


def _version(file: Path) -> _Version | None:
    """What a file is like now; `None` where it is gone."""
    try:
        found = file.stat()
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns
