"""What each phase gained on validation, whether it is kept for that, and when the target is reached.

A phase that trains more of the network replaces an earlier one only if it gained more than one standard error of their
difference on the same validation images: of models that validation cannot tell apart, the simplest (the
one-standard-error rule, Breiman et al. 1984, section 3.4.3). Each phase is compared with the last one that was kept.

Pure functions of the records, as in `history`, so a resumed run decides as the uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from thaw import formats
from thaw.metrics import METRICS, paired_standard_error, wilson
from thaw.recipe import Monitor
from thaw.training.history import EpochRecord, best_index, is_better

_DISCORDANT = 0.5
"""Of the errors of two networks with the same frozen part, the fraction that only one of them makes."""

_ROUNDING = 1e-9
"""A single image that only one of two classifiers predicts correctly is a difference of exactly one standard error."""


@dataclass(frozen=True)
class PhaseGain:
    """What one phase gained on validation, in the monitored metric; a loss is negated, so that higher is better.

    Attributes:
        phase: Name of the phase.
        epochs: Number of epochs trained.
        seconds: Duration of these epochs.
        best: Best value in the phase.
        before: Value of the phase that was kept before it; `None` for the first phase.
        standard_error: Of the gain; `None` for the first phase and where it is unknown.
        is_kept: Whether the phase replaced the one before.
    """

    phase: str
    epochs: int
    seconds: float
    best: float
    before: float | None
    standard_error: float | None
    is_kept: bool

    @property
    def gain(self) -> float:
        """Improvement over the phase that was kept before; negative where it did worse, 0 for the first phase."""
        return 0.0 if self.before is None else self.best - self.before

    @property
    def outcome(self) -> str:
        """What became of the phase's weights, in words; empty for the first phase."""
        if self.before is None:
            return ""
        if self.is_kept:
            return "kept"
        return "not kept" if self.gain < 0 else "not kept: within one standard error"


def phase_gains(records: Sequence[EpochRecord], monitor: Monitor, images: int) -> tuple[PhaseGain, ...]:
    """The gain of each phase with a usable result, in order; `images` is the number of validation images."""
    gains: list[PhaseGain] = []
    kept: EpochRecord | None = None
    for name in dict.fromkeys(record.phase for record in records):
        of_phase = [record for record in records if record.phase == name]
        index = best_index(of_phase, monitor)
        if index is None:
            continue
        best, seconds = of_phase[index], sum(record.seconds for record in of_phase)
        before = standard_error = None
        is_kept = True
        if kept is not None:
            before = kept.val.by(monitor)
            standard_error, is_kept = _compare(kept, best, monitor, images)
        gains.append(PhaseGain(name, len(of_phase), seconds, best.val.by(monitor), before, standard_error, is_kept))
        kept = best if is_kept else kept
    return tuple(gains)


def kept_index(records: Sequence[EpochRecord], gains: Sequence[PhaseGain], monitor: Monitor) -> int | None:
    """Index of the epoch that a run keeps, the best of the last phase that is kept; `None` if none is usable."""
    name = next((gain.phase for gain in reversed(gains) if gain.is_kept), None)
    indices = [index for index, record in enumerate(records) if record.phase == name]
    best = best_index([records[index] for index in indices], monitor)
    return None if best is None else indices[best]


def kept_record(records: Sequence[EpochRecord], monitor: Monitor, images: int) -> EpochRecord | None:
    """The epoch that a run would keep if it ended now; `None` if none is usable."""
    index = kept_index(records, phase_gains(records, monitor, images), monitor)
    return None if index is None else records[index]


def _compare(kept: EpochRecord, best: EpochRecord, monitor: Monitor, images: int) -> tuple[float | None, bool]:
    """The standard error of the gain of one epoch over another, and whether it is kept for that gain."""
    if not (kept.without and best.without):
        # Release 0.1 kept the best epoch of all phases.
        is_fraction = METRICS[monitor].kind == "fraction"
        error = standard_error_of_difference(kept.val[monitor], best.val[monitor], images) if is_fraction else None
        return error, is_better(best.val, kept.val, monitor)
    error = paired_standard_error(kept.without, best.without)
    return error, exceeds(best.val.by(monitor) - kept.val.by(monitor), error)


def exceeds(gain: float, standard_error: float) -> bool:
    """Whether a gain is above one standard error, by more than rounding."""
    return gain - standard_error > _ROUNDING


def standard_error_of_difference(first: float, second: float, images: int) -> float:
    """Approximate standard error of the difference between two accuracies on the same images, from nothing else.

    Only images that exactly one of the two predicts correctly contribute; about half of all errors are of that kind.
    """
    errors = max(2.0 - first - second, 0.0)
    return sqrt(_DISCORDANT * errors / images)


def gain_text(gain: PhaseGain, monitor: Monitor) -> str:
    """A gain and what it is compared with, as `gained 1.9 points of validation accuracy, standard error 0.8`."""
    metric = METRICS[monitor]
    if metric.kind == "loss":
        text = f"{'lowered' if gain.gain >= 0 else 'raised'} validation {metric.title} by {abs(gain.gain):.4f}"
    else:
        change = "gained" if gain.gain >= 0 else "lost"
        text = f"{change} {100 * abs(gain.gain):.1f} points of validation {metric.title}"
    if gain.gain < 0 or gain.standard_error is None:
        return text
    error = f"{gain.standard_error:.4f}" if metric.kind == "loss" else f"{100 * gain.standard_error:.1f}"
    is_within = not exceeds(gain.gain, gain.standard_error)
    return f"{text}, within one standard error ({error})" if is_within else f"{text}, standard error {error}"


def target_reached(kept: EpochRecord | None, target: Mapping[Monitor, float] | None, images: int) -> str | None:
    """A sentence once the lower bound of the 95% interval of every metric of the target reaches it, else `None`.

    Args:
        kept: The epoch that is kept so far.
        target: Fractions 0..1 to reach, by metric.
        images: Number of validation images.
    """
    if not target or kept is None:
        return None
    reached = []
    for name, wanted in target.items():
        value = kept.val[name]
        low, high = wilson(value, images)
        if low < wanted:
            return None
        reached.append(f"{METRICS[name].title} {formats.interval(value, low, high)}")
    return f"target reached on {formats.count(images, 'validation image')}: {', '.join(reached)}"
