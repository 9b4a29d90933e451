"""Places for requests whose bodies are arriving, so that clients that send slowly cannot keep all others waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from thaw.web.limits import RequestRefused

PACE = 100_000
"""Bytes per second that a body is expected to arrive with where others wait for its place."""
TOLERANCE = 1.0
"""Seconds that a body may be behind this pace."""


class Place:
    """The place of one body."""

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout
        self._began = time.monotonic()
        self._size = 0

    @property
    def behind(self) -> float:
        """Seconds that the body is behind `PACE`."""
        return time.monotonic() - self._began - self._size / PACE

    def arrived(self, size: int) -> None:
        """Count bytes of the body."""
        self._size += size

    def give_up(self) -> None:
        """Let the body time out now."""
        if not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time())


class BodyPlaces:
    """A bounded number of places; where all are taken, a new body gets that of the one farthest behind its pace."""

    def __init__(self, places: int, seconds: float) -> None:
        """Create the places; a body can keep its own for some seconds."""
        self._places = places
        self._seconds = seconds
        self._taken: set[Place] = set()

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Place]:
        """A place for one body.

        Raises:
            RequestRefused: All are taken by bodies that arrive fast enough.
            TimeoutError: The body did not arrive in time, or another got its place.
        """
        if len(self._taken) >= self._places:
            self._free_one()
        async with asyncio.timeout(self._seconds) as timeout:
            place = Place(timeout)
            self._taken.add(place)
            try:
                yield place
            finally:
                self._taken.discard(place)

    def _free_one(self) -> None:
        slowest = max(self._taken, key=lambda place: place.behind)
        if slowest.behind < TOLERANCE:
            raise RequestRefused(503, "saturated", "too many requests are arriving; try again in a moment", 1)
        self._taken.discard(slowest)
        slowest.give_up()
