"""How long the measurements of the plan may take."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

LEAST_SECONDS = 10.0
FRACTION = 1 / 8
"""Of the training time that is predicted at most, with all epochs of all phases. Most phases stop early or are skipped,
so that it is about a third of what training takes."""


def default_seconds(training_seconds: float) -> float:
    """The time for measurements where the recipe does not say, given the longest that training may take."""
    return max(LEAST_SECONDS, FRACTION * training_seconds)


def longest_training(seconds: float, trainings: int = 1) -> float:
    """How long each of some trainings may be predicted to take, so that they and the measurements fit into a time."""
    return min((seconds - LEAST_SECONDS) / trainings, seconds / (trainings + FRACTION))


@dataclass
class Budget:
    """Seconds that measurements may take, from now on. refused: whether something did not fit."""

    seconds: float
    started: float = field(default_factory=time.perf_counter)
    refused: bool = False

    @property
    def left(self) -> float:
        """Seconds that are left; negative once they are used up."""
        return self.seconds - (time.perf_counter() - self.started)

    def allows(self, seconds: float) -> bool:
        """Whether something that takes this long still fits."""
        fits = seconds <= self.left
        self.refused = self.refused or not fits
        return fits
