"""Test accuracy against the time since a process started, without the time of the tests. Standard library only."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Point = tuple[float, float]
"""(seconds, test accuracy)"""

TOLERANCE = 1e-6
"""Some tools give accuracies in single precision; one image more or less is a larger difference."""


def seconds_since_birth() -> float:
    """Seconds since this process started, imports included."""
    ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    return float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


@dataclass
class Curve:
    """Points of test accuracy.

    Attributes:
        points: In order of time; the last one is the finished run.
        uncounted: Seconds that testing has taken so far, which are in no point.
    """

    clock: Callable[[], float] = seconds_since_birth
    points: list[Point] = field(default_factory=list)
    uncounted: float = 0.0

    def test(self, accuracy: Callable[[], float]) -> float:
        """Add a point at the time at which this is called; returns its accuracy."""
        began = self.clock()
        value = accuracy()
        self.points.append((began - self.uncounted, value))
        self.uncounted += self.clock() - began
        return value


def seconds_to(points: Sequence[Point], accuracy: float) -> float:
    """When an accuracy was first reached; infinity if it never was."""
    return min((seconds for seconds, value in points if value >= accuracy - TOLERANCE), default=math.inf)
