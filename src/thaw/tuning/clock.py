"""The limits of a search, and its time: what it has taken over all interruptions, and what is left."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

DEFAULT_SECONDS = 30 * 60.0
"""How long a search may take where nobody says."""


@dataclass(frozen=True)
class Limits:
    """How long a search goes on: seconds in all, and trials; `None` for as many as pay.

    spent: Seconds that have already gone by, such as those in which libraries were imported.
    """

    seconds: float | None = DEFAULT_SECONDS
    trials: int | None = None
    spent: float = 0.0


@dataclass(frozen=True)
class Clock:
    """Seconds of a search.

    Attributes:
        limit: How long the search may take in all; `None` for no limit.
        before: Seconds that it took before it was interrupted.
    """

    limit: float | None
    before: float = 0.0
    _started: float = field(default_factory=time.perf_counter)

    @property
    def elapsed(self) -> float:
        """Seconds of the search so far."""
        return self.before + time.perf_counter() - self._started

    def left(self, reserved: float = 0.0) -> float:
        """Seconds that are left but for a reserve; infinite without a limit."""
        return float("inf") if self.limit is None else self.limit - self.elapsed - reserved
