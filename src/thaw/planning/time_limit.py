"""Phases that fit into a time limit: without the deepest stages, then with fewer epochs.

A schedule of fewer epochs is planned, instead of one that ends when the time is up: its learning rate decays fully, and
a run that is interrupted and resumed stays the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil

from thaw.clock import CONCLUDING_SECONDS, Clock, concluding_seconds
from thaw.data.manifest import Manifest
from thaw.formats import duration
from thaw.planning.costs import Forecast
from thaw.planning.measurements import Choice
from thaw.recipe import Phase
from thaw.selection.budget import longest_training

LEAST_EPOCHS = 4
"""Of thawed stages, as few as a limit leaves them. Four were 0.1 ± 0.3 points behind twenty that stop early, but on
solar cells a whole point, and were not kept there (bench/epochs.py): they are for those who have no time for more."""

_IN_SECONDS = 600.0
"""Limits below this are shown to the second."""

_NEEDS_EPOCHS = ("epochs", "freeze_after", "warmup_epochs")
"""Settings of a phase that are for its number of epochs."""


@dataclass(frozen=True)
class TimeLimit:
    """A time limit that a plan has to fit into.

    Attributes:
        clock: Of the run that is planned, or of the search.
        trainings: How many trainings of the plan have to fit into it.
        concluding: Seconds for what no forecast has.
    """

    clock: Clock
    trainings: int = 1
    concluding: float = CONCLUDING_SECONDS

    @property
    def left(self) -> float:
        """Seconds that are left for measuring settings and for training."""
        return self.clock.left(self.concluding)

    def for_training(self, spent: float | None, given: float | None = None) -> float:
        """Seconds for each training, after what settings are still to be measured.

        Args:
            spent: Seconds of the measurements that are behind; `None` where nothing more is measured.
            given: Seconds for all of them; `None` where these follow from those of training.
        """
        longest = self.left / self.trainings
        if spent is None:
            return longest
        if given is None:
            return min(longest, longest_training(self.left + spent, self.trainings))
        return min(longest, (self.left + spent - given) / self.trainings)

    def exceeded_by(self, forecast: Forecast) -> float:
        """Seconds that the trainings may take beyond the limit, by the forecast of one; negative where they fit."""
        return self.trainings * forecast.seconds - self.left

    def choice(self, forecast: Forecast, left_out: Sequence[Phase]) -> Choice:
        """The limit as a choice of the plan, whose reason says whether training should fit into it.

        Args:
            forecast: Of one training.
            left_out: Phases that it leaves no time for.
        """
        limit, excess = self.clock.limit, self.exceeded_by(forecast)
        assert limit is not None
        what = "training" if self.trainings == 1 else f"{self.trainings} trainings"
        seconds, left = duration(self.trainings * forecast.seconds), duration(max(self.left, 0.0))
        reason = f"{what} should take {seconds} at most, of the {left} that are left for it"
        if excess > 0:
            reason = f"exceeded by up to {duration(excess)}: {reason}"
        for phase in left_out:
            reason += f"; phase {phase.name} is left out"
        return Choice("time_limit", f"{limit:.0f} s" if limit < _IN_SECONDS else duration(limit), reason)


def concluding_seconds_of(manifest: Manifest) -> float:
    """Seconds for what no forecast has of a training on these images, such as the evaluation."""
    evaluated = sum(len(manifest.indices(split)) for split in ("val", "test"))
    return concluding_seconds(evaluated, len(manifest.classes))


def shortened(
    phases: Sequence[Phase], forecast: Forecast, seconds: float, fixed: Collection[str] = ()
) -> tuple[Phase, ...]:
    """The phases, shortened as far as they have to be to fit into a time, and as they may be.

    Args:
        phases: As planned.
        forecast: What they take.
        seconds: What they may take, with the extraction of features; they may still take longer.
        fixed: Settings of phases that were asked for, such as "phases.1.lr"; these phases stay, and so do the epochs of
            those whose epochs, `freeze_after` or warm-up were asked for.

    Returns:
        The first of the phases, without optional ones from the third on that do not fit, and the remaining ones with
        no fewer than `LEAST_EPOCHS` epochs of thawed stages.
    """
    named = {key.rpartition(".")[0] for key in fixed}
    has_fixed_epochs = {key.rpartition(".")[0] for key in fixed if key.rpartition(".")[2] in _NEEDS_EPOCHS}
    taken, kept = forecast.phase_seconds, list(phases)
    while len(kept) > 2 and kept[-1].optional and f"phases.{len(kept) - 1}" not in named:
        if forecast.extraction_seconds + sum(taken[: len(kept)]) <= seconds:
            break
        kept.pop()
    epochs = [phase.epochs for phase in kept]
    excess = forecast.extraction_seconds + sum(taken[: len(kept)]) - seconds
    # The first phase is the head, or all of a network with random weights, which needs its epochs.
    for index in range(len(kept) - 1, 0, -1):
        of_one = forecast.epoch_seconds[index]
        if excess > 0 and of_one > 0 and f"phases.{index}" not in has_fixed_epochs:
            fewer = min(ceil(excess / of_one), max(0, epochs[index] - LEAST_EPOCHS))
            epochs[index] -= fewer
            excess -= fewer * of_one
    return tuple(phase.model_copy(update={"epochs": number}) for phase, number in zip(kept, epochs, strict=True))
