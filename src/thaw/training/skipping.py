"""Which phases are not trained, or not to their end, because they are not expected to be kept, and the time saved.

Pure functions of the records, as in `history`, so a resumed run decides as the uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thaw.metrics import METRICS, paired_standard_error
from thaw.recipe import Phase
from thaw.training.context import FitSettings
from thaw.training.gain import PhaseGain, exceeds, gain_text, kept_record, target_reached
from thaw.training.history import EpochRecord

_DEEPER_GAIN = 0.2
"""Expected gain of thawing deeper, as a fraction of the gain of the previous thaw.

In five runs on solar cells and steel it was between 0 and 0.25, for a quarter to a half of all training time, and never
above one standard error.
"""

_FIRST_EPOCHS, _FIRST_FRACTION = 3, 0.3
"""Epochs after which an optional phase ends if none is as good as what it would replace: three, of long schedules more.

On five splits of four sets, ten epochs each, that took 0.71 of the epochs with MobileNetV2 (224 px) and 0.54 with the
starter (128 px), and changed the accuracy of what is kept by +0.03 ± 0.09 and +0.10 ± 0.11 points
(bench/first_epochs.py).
"""


@dataclass(frozen=True)
class SkippedPhase:
    """A phase that was not trained, why, and the seconds that it was predicted to take at most."""

    phase: str
    reason: str
    seconds: float


def reason_to_skip(
    records: Sequence[EpochRecord],
    gains: Sequence[PhaseGain],
    phases: Sequence[Phase],
    index: int,
    settings: FitSettings,
) -> str | None:
    """Why phase `index` is skipped, given the records and gains of the phases before it; `None` where it is trained.

    Every phase is skipped once the target is reached. An optional phase is skipped if too few errors are left for any
    phase to be kept, if the last phase that was trained was not kept, or if the gain to expect from thawing deeper is
    within one standard error.
    """
    phase, monitor = phases[index], settings.monitor
    kept = kept_record(records, gains, monitor)
    if target_reached(kept, settings.target, settings.val_images, settings.target_trials):
        return "the target is reached"
    if not phase.optional or kept is None:
        return None
    if reason := _nothing_to_gain(kept, settings):
        return reason
    trained = {record.phase for record in records}
    name = next(phase.name for phase in reversed(phases[:index]) if phase.name in trained)
    previous = next((gain for gain in gains if gain.phase == name), None)
    if previous is None:
        return f"phase {name} diverged"
    if previous.before is None:
        return None
    reason, standard_error = f"phase {name} {gain_text(previous, monitor)}", previous.standard_error or 0.0
    if not previous.is_kept or not exceeds(previous.gain, 0.0):
        return reason
    if exceeds(_DEEPER_GAIN * previous.gain, standard_error):
        return None
    return f"{reason}, and the fifth of that to expect from thawing deeper is within it"


def falls_short(gain: PhaseGain, phase: Phase) -> bool:
    """Whether an optional phase ends early, because none of its first epochs is as good as what it would replace.

    Args:
        gain: Of the phase with its epochs so far.
        phase: The phase; one without early stopping trains all of its epochs.
    """
    if not phase.optional or phase.patience is None:
        return False
    first = max(_FIRST_EPOCHS, round(_FIRST_FRACTION * phase.epochs))
    return gain.epochs >= first and exceeds(-gain.gain, 0.0)


def skipped_phases(
    records: Sequence[EpochRecord], gains: Sequence[PhaseGain], phases: Sequence[Phase], settings: FitSettings
) -> tuple[SkippedPhase, ...]:
    """The phases that a finished run has skipped."""
    skipped = []
    seconds = settings.phase_seconds or (0.0,) * len(phases)
    for index, phase in enumerate(phases):
        if any(record.phase == phase.name for record in records):
            continue
        earlier = {other.name for other in phases[:index]}
        before = [record for record in records if record.phase in earlier]
        reason = reason_to_skip(before, [gain for gain in gains if gain.phase in earlier], phases, index, settings)
        if reason:
            skipped.append(SkippedPhase(phase.name, reason, seconds[index]))
    return tuple(skipped)


def _nothing_to_gain(kept: EpochRecord, settings: FitSettings) -> str | None:
    """Why no phase could be kept in place of an epoch, even if it made no error."""
    metric, value = METRICS[settings.monitor], kept.val[settings.monitor]
    if metric.kind != "fraction":
        return None
    if value >= 1.0:
        return f"validation {metric.title} is perfect"
    if settings.keep_phase == "any_gain":
        return None
    error = paired_standard_error(kept.without, [1.0] * len(kept.without)) if kept.without else 0.0
    if exceeds(1.0 - value, error):
        return None
    left = f"the {100 * (1.0 - value):.1f} points of validation {metric.title} that are left to gain"
    return f"{left} are within one standard error ({100 * error:.1f})"
