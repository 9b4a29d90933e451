"""What thawing was worth on validation, and what follows: whether to thaw further, and when the target is reached.

Pure functions of the records, as in `history`, so that a resumed run decides what it would have decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from thaw.classifier.metrics import wilson
from thaw.recipe import Monitor, Phase
from thaw.training.history import EpochRecord, best_index

_OWN_MISTAKES = 0.5
"""Of the mistakes of two networks that share their frozen part, the share that only one of them makes."""

_DEEPER_SHARE = 0.2
"""What thawing deeper may bring, as a share of what the last thaw brought: in the five runs on solar cells and steel
that measured it, between nothing and a quarter, for a quarter to a half of all the time, and never beyond noise."""


@dataclass(frozen=True)
class PhaseWorth:
    """One phase: its best monitored value, what was best before it, and how far chance alone moves the difference.

    before: `None` for the first phase. noise: one standard error of the difference, in the metric's unit; `None` for
    the loss, which is no share of images.
    """

    phase: str
    epochs: int
    seconds: float
    best: float
    before: float | None
    noise: float | None

    @property
    def gain(self) -> float:
        """By how much it beat what was there; negative where it did not."""
        return 0.0 if self.before is None else self.best - self.before

    @property
    def is_beyond_noise(self) -> bool:
        """Whether it was better by more than one standard error, or at all where that is unknown."""
        return self.gain > (self.noise or 0.0)


def worth_of(records: Sequence[EpochRecord], monitor: Monitor, images: int) -> tuple[PhaseWorth, ...]:
    """Each phase that gave a usable result, in order; `images` is how many validation has."""
    found: list[PhaseWorth] = []
    for name in dict.fromkeys(record.phase for record in records):
        own = [record for record in records if record.phase == name]
        best = best_index(own, monitor)
        if best is None:
            continue
        value = own[best].val.by(monitor)
        before = max((item.best for item in found), default=None)
        noise = None if before is None or monitor == "loss" else noise_between(before, value, images)
        found.append(PhaseWorth(name, len(own), sum(record.seconds for record in own), value, before, noise))
    return tuple(found)


def noise_between(one: float, other: float, images: int) -> float:
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
    found = {item.phase: item for item in worth_of(records, monitor, images)}
    if not phase.optional or not found:
        return None
    if monitor != "loss" and max(item.best for item in found.values()) >= 1.0:
        return f"phase {phase.name} is left out: validation has no mistake left that it could mend"
    previous = found.get(phases[index - 1].name)
    if previous is None or previous.before is None:
        return None
    said = f"phase {phase.name} is left out: phase {previous.phase} changed validation {monitor.replace('_', ' ')} by"
    noise = "" if previous.noise is None else f", where chance alone moves it by {previous.noise:.1%}"
    if not previous.is_beyond_noise:
        return f"{said} {previous.gain:+.1%}{noise}"
    if _DEEPER_SHARE * previous.gain <= (previous.noise or 0.0):
        return f"{said} {previous.gain:+.1%}, and going deeper brings a fifth of that at best{noise}"
    return None


def target_reached(records: Sequence[EpochRecord], target: str | None, images: int) -> str | None:
    """The sentence that says so when the lower end of the 95 % interval of a result reaches the target."""
    if target is None or not records:
        return None
    metric, _, wanted = target.partition("=")
    best = max(float(getattr(record.val, metric)) for record in records)
    low, _ = wilson(best, images)
    if low < float(wanted):
        return None
    return (
        f"target {target} is reached: {best:.1%} on {images} validation images, with 95 % confidence {low:.1%} or more"
    )
