"""What each phase gained on validation, and what follows: whether to skip later phases, and when the target is reached.

Pure functions of the records, as in `history`, so a resumed run decides as the uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from thaw import formats
from thaw.metrics import METRICS, wilson
from thaw.recipe import Monitor, Phase
from thaw.training.history import EpochRecord, best_index

_DISCORDANT = 0.5
"""Of the errors of two networks with the same frozen part, the fraction that only one of them makes."""

_DEEPER_GAIN = 0.2
"""Expected gain of thawing deeper, as a fraction of the gain of the previous thaw.

In five runs on solar cells and steel it was between 0 and 0.25, for a quarter to a half of all training time, and never
above one standard error.
"""


@dataclass(frozen=True)
class PhaseGain:
    """What one phase gained on validation, in the monitored metric; a loss is negated, so that higher is better.

    Attributes:
        phase: Name of the phase.
        epochs: Number of epochs trained.
        seconds: Duration of these epochs.
        best: Best value in the phase.
        before: Best value of all earlier phases; `None` for the first phase.
        standard_error: Of the gain; `None` for the first phase and for a metric that is no fraction of images.
    """

    phase: str
    epochs: int
    seconds: float
    best: float
    before: float | None
    standard_error: float | None

    @property
    def gain(self) -> float:
        """Improvement over the earlier phases; negative where it did worse, 0 for the first phase."""
        return 0.0 if self.before is None else self.best - self.before

    @property
    def outcome(self) -> str:
        """What became of the phase's weights, in words; empty for the first phase."""
        if self.before is None:
            return ""
        return "kept" if self.gain > 0 else "no change" if self.gain == 0 else "not kept"

    @property
    def exceeds_standard_error(self) -> bool:
        """Whether the gain is above one standard error, or above 0 where that is unknown."""
        return self.gain > (self.standard_error or 0.0)


def phase_gains(records: Sequence[EpochRecord], monitor: Monitor, images: int) -> tuple[PhaseGain, ...]:
    """The gain of each phase with a usable result, in order; `images` is the number of validation images."""
    gains: list[PhaseGain] = []
    for name in dict.fromkeys(record.phase for record in records):
        of_phase = [record for record in records if record.phase == name]
        index = best_index(of_phase, monitor)
        if index is None:
            continue
        best = of_phase[index].val.by(monitor)
        before = max((gain.best for gain in gains), default=None)
        standard_error = None
        if before is not None and METRICS[monitor].kind == "fraction":
            standard_error = standard_error_of_difference(before, best, images)
        seconds = sum(record.seconds for record in of_phase)
        gains.append(PhaseGain(name, len(of_phase), seconds, best, before, standard_error))
    return tuple(gains)


def standard_error_of_difference(first: float, second: float, images: int) -> float:
    """Standard error of the difference between two accuracies on the same images.

    Only images that exactly one of the two predicts correctly contribute; about half of all errors are of that kind.
    """
    errors = max(2.0 - first - second, 0.0)
    return sqrt(_DISCORDANT * errors / images)


def reason_to_skip(
    records: Sequence[EpochRecord], phases: Sequence[Phase], index: int, monitor: Monitor, images: int
) -> str | None:
    """Why optional phase `index` should be skipped, or `None`.

    It is skipped if validation is perfect, if the previous phase gained less than one standard error, or if the gain to
    expect from thawing deeper is below that.
    """
    phase = phases[index]
    gains = {gain.phase: gain for gain in phase_gains(records, monitor, images)}
    if not phase.optional or not gains:
        return None
    if METRICS[monitor].kind == "fraction" and max(gain.best for gain in gains.values()) >= 1.0:
        return f"phase {phase.name} is skipped: validation {METRICS[monitor].title} is perfect"
    previous = gains.get(phases[index - 1].name)
    if previous is None or previous.before is None:
        return None
    said = f"phase {phase.name} is skipped: phase {previous.phase} {_gain_text(previous, monitor)}"
    standard_error = previous.standard_error or 0.0
    if not previous.exceeds_standard_error:
        is_within = standard_error and previous.gain >= 0
        return said + (f", within one standard error ({100 * standard_error:.1f})" if is_within else "")
    if _DEEPER_GAIN * previous.gain <= standard_error:
        return (
            f"{said}, and the fifth of that to expect from thawing deeper is within one standard error "
            f"({100 * standard_error:.1f})"
        )
    return None


def _gain_text(gain: PhaseGain, monitor: Monitor) -> str:
    """A gain in words, such as `gained 1.9 points of validation accuracy`."""
    metric = METRICS[monitor]
    if metric.kind == "loss":
        return f"{'lowered' if gain.gain >= 0 else 'raised'} validation {metric.title} by {abs(gain.gain):.4f}"
    return f"{'gained' if gain.gain >= 0 else 'lost'} {100 * abs(gain.gain):.1f} points of validation {metric.title}"


def target_reached(records: Sequence[EpochRecord], target: Mapping[Monitor, float] | None, images: int) -> str | None:
    """A sentence once the lower bound of the 95% interval of every metric of the target reaches it, else `None`.

    Args:
        records: Of all epochs.
        target: Fractions 0..1 to reach, by metric.
        images: Number of validation images.
    """
    if not target or not records:
        return None
    reached = []
    for name, wanted in target.items():
        best = max(record.val[name] for record in records)
        low, high = wilson(best, images)
        if low < wanted:
            return None
        reached.append(f"{METRICS[name].title} {formats.interval(best, low, high)}")
    return f"target reached on {formats.count(images, 'validation image')}: {', '.join(reached)}"
