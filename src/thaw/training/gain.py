"""What each phase gained on validation, whether it is kept for that, and when the target is reached.

A phase that trains more of the network replaces an earlier one only if it gained more than one standard error of their
difference on the same validation images: of models that validation cannot tell apart, the simplest (the
one-standard-error rule, Breiman et al. 1984, section 3.4.3). Each phase is compared with the last one that was kept.
Where a small validation set leaves it unclear, both are trained once more on another split, and the two gains pooled.

Pure functions of the records, as in `history`, so a resumed run decides as the uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot, sqrt

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
        gain: Improvement over the phase that was kept before, the mean over all splits; negative where it did worse, 0
            for the first phase.
        standard_error: Of the gain; `None` for the first phase and where it is unknown.
        is_kept: Whether the phase replaced the one before.
        splits: Divisions into training and validation images on which the gain was measured.
    """

    phase: str
    epochs: int
    seconds: float
    best: float
    before: float | None
    gain: float
    standard_error: float | None
    is_kept: bool
    splits: int = 1

    @property
    def is_unclear(self) -> bool:
        """Whether the phase did better, but not by more than one standard error."""
        return self.gain > 0 and self.standard_error is not None and not exceeds(self.gain, self.standard_error)

    @property
    def outcome(self) -> str:
        """What became of the phase's weights, in words; empty for the first phase."""
        if self.before is None:
            return ""
        on = f" ({self.splits} splits)" if self.splits > 1 else ""
        if self.is_kept:
            return f"kept{on}"
        return f"not kept{on}" if self.gain < 0 else f"not kept: within one standard error{on}"


def phase_gain(
    records: Sequence[EpochRecord], name: str, earlier: Sequence[PhaseGain], monitor: Monitor, images: int
) -> PhaseGain | None:
    """The gain of one phase, with its epochs so far; `None` if none is usable.

    Args:
        records: Of all epochs.
        name: Of the phase.
        earlier: The gains of the phases before it.
        monitor: The metric.
        images: Number of validation images.
    """
    of_phase = [record for record in records if record.phase == name]
    index = best_index(of_phase, monitor)
    if index is None:
        return None
    best, kept = of_phase[index], kept_record(records, earlier, monitor)
    found = PhaseGain(
        phase=name,
        epochs=len(of_phase),
        seconds=sum(record.seconds for record in of_phase),
        best=best.val.by(monitor),
        before=None,
        gain=0.0,
        standard_error=None,
        is_kept=True,
    )
    if kept is None:
        return found
    before = kept.val.by(monitor)
    found = replace(found, before=before, gain=found.best - before)
    if kept.without and best.without:
        error = paired_standard_error(kept.without, best.without)
        return replace(found, standard_error=error, is_kept=exceeds(found.gain, error))
    # Release 0.1 kept the best epoch of all phases.
    found = replace(found, is_kept=is_better(best.val, kept.val, monitor))
    if METRICS[monitor].kind == "loss":
        return found
    return replace(found, standard_error=standard_error_of_difference(kept.val[monitor], best.val[monitor], images))


def phase_gains(records: Sequence[EpochRecord], monitor: Monitor, images: int) -> tuple[PhaseGain, ...]:
    """The gain of each phase with a usable epoch, in order, on one split."""
    gains: tuple[PhaseGain, ...] = ()
    for name in dict.fromkeys(record.phase for record in records):
        gain = phase_gain(records, name, gains, monitor, images)
        gains = (*gains, gain) if gain else gains
    return gains


def pooled(first: PhaseGain, second: PhaseGain) -> PhaseGain:
    """The gain of a phase on two splits with other validation images; its epochs and values are of the first."""
    gain = (first.gain + second.gain) / 2
    error = hypot(first.standard_error or 0.0, second.standard_error or 0.0) / 2
    splits = first.splits + second.splits
    return replace(first, gain=gain, standard_error=error, is_kept=exceeds(gain, error), splits=splits)


def kept_index(records: Sequence[EpochRecord], gains: Sequence[PhaseGain], monitor: Monitor) -> int | None:
    """Index of the epoch that a run keeps, the best of the last phase that is kept; `None` if none is usable."""
    name = next((gain.phase for gain in reversed(gains) if gain.is_kept), None)
    indices = [index for index, record in enumerate(records) if record.phase == name]
    best = best_index([records[index] for index in indices], monitor)
    return None if best is None else indices[best]


def kept_record(records: Sequence[EpochRecord], gains: Sequence[PhaseGain], monitor: Monitor) -> EpochRecord | None:
    """The epoch that a run keeps; `None` if none is usable."""
    index = kept_index(records, gains, monitor)
    return None if index is None else records[index]


def exceeds(gain: float, standard_error: float) -> bool:
    """Whether a gain is above one standard error, by more than rounding."""
    return gain - standard_error > _ROUNDING


def standard_error_of_difference(first: float, second: float, images: int) -> float:
    """Approximate standard error of the difference between two accuracies on the same images, from nothing else.

    Only images that exactly one of the two predicts correctly contribute; about half of all errors are of that kind.
    """
    errors = max((1.0 - first) + (1.0 - second), 0.0)
    return sqrt(_DISCORDANT * errors / images)


def gain_text(gain: PhaseGain, monitor: Monitor) -> str:
    """A gain and what it is compared with, as `gained 1.9 points of validation accuracy, standard error 0.8`."""
    metric = METRICS[monitor]
    if metric.kind == "loss":
        text = f"{'lowered' if gain.gain >= 0 else 'raised'} validation {metric.title} by {abs(gain.gain):.4f}"
    else:
        change = "gained" if gain.gain >= 0 else "lost"
        text = f"{change} {100 * abs(gain.gain):.1f} points of validation {metric.title}"
    if gain.splits > 1:
        text += f" on {gain.splits} splits"
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
