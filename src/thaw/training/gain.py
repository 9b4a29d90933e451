"""What thawing was worth on validation, and what follows: whether to thaw further, and when the target is reached.

Pure functions of the records, as in `history`, so that a resumed run decides what it would have decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from thaw.classifier.metrics import wilson
from thaw.recipe import Monitor, Phase
from thaw.training.history import EpochRecord, best_index

_OWN_MISTAKES = 0.5
"""Of the mistakes of two networks that share their frozen part, the share that only one of them makes."""

_DEEPER_GAIN = 0.2
"""What thawing deeper may bring, as a share of what the last thaw brought: in the five runs on solar cells and steel
that measured it, between nothing and a quarter, for a quarter to a half of all the time, and never beyond noise."""


@dataclass(frozen=True)
class PhaseGain:
    """One phase: its best monitored value, what was best before it, and how far chance alone moves the difference.

    before: `None` for the first phase. noise: one standard error of the difference, in the metric's unit; `None` for
    the loss, which is no share of images.
    """

    phase: str
    epochs: int
    seconds: float
    best: float
    before: float | None
    standard_error: float | None

    @property
    def gain(self) -> float:
        """By how much it beat what was there; negative where it did not."""
        return 0.0 if self.before is None else self.best - self.before

    @property
    def exceeds_standard_error(self) -> bool:
        """Whether it was better by more than one standard error, or at all where that is unknown."""
        return self.gain > (self.standard_error or 0.0)


def phase_gains(records: Sequence[EpochRecord], monitor: Monitor, images: int) -> tuple[PhaseGain, ...]:
    """Each phase that gave a usable result, in order; `images` is how many validation has."""
    found: list[PhaseGain] = []
    for name in dict.fromkeys(record.phase for record in records):
        own = [record for record in records if record.phase == name]
        best = best_index(own, monitor)
        if best is None:
            continue
        value = own[best].val.by(monitor)
        before = max((item.best for item in found), default=None)
        standard_error = (
            None if before is None or monitor == "loss" else standard_error_of_difference(before, value, images)
        )
        found.append(PhaseGain(name, len(own), sum(record.seconds for record in own), value, before, standard_error))
    return tuple(found)


def standard_error_of_difference(one: float, other: float, images: int) -> float:
    """Standard error of the difference of two shares of right answers on the same images.

    Only images that one of them gets right and the other wrong tell them apart; about half of all mistakes are such.
    """
    mistakes = max(2.0 - one - other, 0.0)
    return sqrt(_OWN_MISTAKES * mistakes / images)


def reason_to_skip(
    records: Sequence[EpochRecord], phases: Sequence[Phase], index: int, monitor: Monitor, images: int
) -> str | None:
    """Why optional phase `index` should not be trained, or `None`."""
    phase = phases[index]
    found = {item.phase: item for item in phase_gains(records, monitor, images)}
    if not phase.optional or not found:
        return None
    if monitor != "loss" and max(item.best for item in found.values()) >= 1.0:
        return f"phase {phase.name} is left out: validation has no mistake left that it could mend"
    previous = found.get(phases[index - 1].name)
    if previous is None or previous.before is None:
        return None
    said = f"phase {phase.name} is left out: phase {previous.phase} changed validation {monitor.replace('_', ' ')} by"
    standard_error = (
        "" if previous.standard_error is None else f", where chance alone moves it by {previous.standard_error:.1%}"
    )
    if not previous.exceeds_standard_error:
        return f"{said} {previous.gain:+.1%}{standard_error}"
    if _DEEPER_GAIN * previous.gain <= (previous.standard_error or 0.0):
        return f"{said} {previous.gain:+.1%}, and going deeper brings a fifth of that at best{standard_error}"
    return None


def target_reached(records: Sequence[EpochRecord], target: Mapping[Monitor, float] | None, images: int) -> str | None:
    """A sentence where the lower end of the 95 % interval of every metric of the target reaches it; else `None`."""
    if not target or not records:
        return None
    reached = []
    for metric, wanted in target.items():
        best = max(record.val.by(metric) for record in records)
        low, _ = wilson(best, images)
        if low < wanted:
            return None
        reached.append(f"{metric.replace('_', ' ')} is {best:.1%}, with 95% confidence at least {low:.1%}")
    return f"target reached on {images} validation images: {'; '.join(reached)}"
