"""What each phase gained on validation, whether it is kept for that, and when the target is reached.

A phase that trains more of the network replaces an earlier one if it is better on validation. Where validation is too
optimistic, it must have gained more than one standard error of their difference on the same images: of models that
validation cannot tell apart, the simplest (the one-standard-error rule, Breiman et al. 1984, section 3.4.3). Each phase
is compared with the last one that was kept.

Pure functions of the records, as in `history`, so a resumed run decides as the uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

from thaw import formats
from thaw.metrics import METRICS, paired_standard_error, wilson
from thaw.recipe import KeepPhase, Monitor
from thaw.training.history import EpochRecord, best_index, is_better

_DISCORDANT = 0.5
"""Of the errors of two networks with the same frozen part, the fraction that only one of them makes."""

_ROUNDING = 1e-9
"""A single image that only one of two classifiers predicts correctly is a difference of exactly one standard error."""

KEPT_FOR: Mapping[KeepPhase, str] = {
    "any_gain": "any gain",
    "standard_error": "a gain of more than one standard error",
}
"""What a later phase is kept for, in words."""


@dataclass(frozen=True)
class KeepRule:
    """How a later phase is compared with the one that is kept, and the gain for which it replaces it.

    monitor: the metric. images: number of validation images. keep: what it is kept for.
    """

    monitor: Monitor
    images: int
    keep: KeepPhase = "any_gain"


@dataclass(frozen=True)
class PhaseGain:
    """What one phase gained on validation, in the monitored metric; a loss is negated, so that higher is better.

    Attributes:
        phase: Name of the phase.
        epochs: Number of epochs trained.
        seconds: Duration of these epochs.
        best: Best value in the phase.
        before: Value of the phase that was kept before it; `None` for the first phase.
        gain: Improvement over the phase that was kept before; negative where it did worse, 0 for the first phase.
        standard_error: Of the gain; `None` for the first phase and where it is unknown.
        is_kept: Whether the phase replaced the one before.
    """

    phase: str
    epochs: int
    seconds: float
    best: float
    before: float | None
    gain: float
    standard_error: float | None
    is_kept: bool

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> PhaseGain:
        """What `asdict` gave; runs that measured gains on one or two splits also have their number, `splits`."""
        return cls(**{key: value for key, value in values.items() if key != "splits"})

    @property
    def outcome(self) -> str:
        """What became of the phase's weights, in words; empty for the first phase."""
        if self.before is None:
            return ""
        if self.is_kept:
            return "kept"
        return "not kept: within one standard error" if exceeds(self.gain, 0.0) else "not kept"


def phase_gain(
    records: Sequence[EpochRecord], name: str, earlier: Sequence[PhaseGain], rule: KeepRule
) -> PhaseGain | None:
    """The gain of one phase, with its epochs so far; `None` if none is usable.

    Args:
        records: Of all epochs.
        name: Of the phase.
        earlier: The gains of the phases before it.
        rule: For what gain the phase is kept.
    """
    monitor = rule.monitor
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
        needed = error if rule.keep == "standard_error" else 0.0
        return replace(found, standard_error=error, is_kept=exceeds(found.gain, needed))
    # Release 0.1 kept the best epoch of all phases.
    found = replace(found, is_kept=is_better(best.val, kept.val, monitor))
    if METRICS[monitor].kind == "loss":
        return found
    error = standard_error_of_difference(kept.val[monitor], best.val[monitor], rule.images)
    return replace(found, standard_error=error)


def phase_gains(records: Sequence[EpochRecord], rule: KeepRule) -> tuple[PhaseGain, ...]:
    """The gain of each phase with a usable epoch, in order."""
    gains: tuple[PhaseGain, ...] = ()
    for name in dict.fromkeys(record.phase for record in records):
        gain = phase_gain(records, name, gains, rule)
        gains = (*gains, gain) if gain else gains
    return gains


def kept_index(records: Sequence[EpochRecord], gains: Sequence[PhaseGain], monitor: Monitor) -> int | None:
    """Index of the epoch that a run keeps, the best of the last phase that is kept; `None` if none is usable."""
    name = next((gain.phase for gain in reversed(gains) if gain.is_kept), None)
    indices = [index for index, record in enumerate(records) if record.phase == name]
    best = best_index([records[index] for index in indices], monitor)
    return None if best is None else indices[best]


def kept_epochs(
    records: Sequence[EpochRecord], gains: Sequence[PhaseGain], monitor: Monitor
) -> tuple[EpochRecord, ...]:
    """The epochs that led to what a run keeps: of each phase that is kept, those up to its best."""
    found: list[EpochRecord] = []
    for gain in gains:
        of_phase = [record for record in records if record.phase == gain.phase]
        best = best_index(of_phase, monitor)
        if gain.is_kept and best is not None:
            found += of_phase[: best + 1]
    return tuple(found)


def kept_record(records: Sequence[EpochRecord], gains: Sequence[PhaseGain], monitor: Monitor) -> EpochRecord | None:
    """The epoch that a run keeps; `None` if none is usable."""
    index = kept_index(records, gains, monitor)
    return None if index is None else records[index]


def exceeds(gain: float, needed: float) -> bool:
    """Whether a gain is above what is needed, such as one standard error, by more than rounding."""
    return gain - needed > _ROUNDING


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
    if gain.standard_error is None or not exceeds(gain.gain, 0.0):
        return text
    error = f"{gain.standard_error:.4f}" if metric.kind == "loss" else f"{100 * gain.standard_error:.1f}"
    return f"{text}, standard error {error}" if gain.is_kept else f"{text}, within one standard error ({error})"


def target_reached(
    kept: EpochRecord | None, target: Mapping[Monitor, float] | None, images: int, trials: Mapping[Monitor, int]
) -> str | None:
    """A sentence once the lower bound of the 95% interval of every metric of the target reaches it, else `None`.

    Args:
        kept: The epoch that is kept so far.
        target: Fractions 0..1 to reach, by metric.
        images: Number of validation images.
        trials: On how many independent images, or groups of images, each metric rests.
    """
    if not target or kept is None:
        return None
    reached = []
    for name, wanted in target.items():
        value = kept.val[name]
        low, high = wilson(value, trials[name])
        if low < wanted:
            return None
        reached.append(f"{METRICS[name].title} {formats.interval(value, low, high)}")
    return f"target reached on {formats.count(images, 'validation image')}: {', '.join(reached)}"
