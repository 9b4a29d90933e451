"""How long something may take in all, what it has taken, and what is left."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

CONCLUDING_SECONDS = 15.0
"""For what no forecast has: imports before, evaluation, bundle and pages after. With MobileNetV2 and 1,360 images these
take 8 s on two cores (docs/benchmark.md)."""

_COVERED = 1_000_000
"""Probabilities of evaluated images that these seconds are enough for, such as 5,000 images and 200 classes."""

_PER_PROBABILITY = 1e-6
"""Seconds of each one more. The metrics of 7,500 images and 1,000 classes take 0.6 of them on one core."""


def concluding_seconds(images: int, classes: int) -> float:
    """Seconds for what no forecast has, where so many images are evaluated."""
    return CONCLUDING_SECONDS + _PER_PROBABILITY * max(0, images * classes - _COVERED)


@dataclass(frozen=True)
class Clock:
    """Seconds of a run or a search, which begins when this is made.

    Attributes:
        limit: How long it may take in all; `None` for no limit.
        before: Seconds that it took before it was interrupted.
    """

    limit: float | None
    before: float = 0.0
    _started: float = field(default_factory=time.perf_counter)

    @property
    def elapsed(self) -> float:
        """Seconds so far."""
        return self.before + time.perf_counter() - self._started

    def left(self, reserved: float = 0.0) -> float:
        """Seconds that are left but for a reserve; infinite without a limit."""
        return float("inf") if self.limit is None else self.limit - self.elapsed - reserved
