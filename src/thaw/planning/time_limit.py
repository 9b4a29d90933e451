"""Phases that fit into a limit of time: without the deepest stages, then with fewer epochs.

A schedule of fewer epochs is planned, instead of one that ends when the time is up: its learning rate comes down to the
end, and a run that is interrupted and resumed stays the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import floor

from thaw.clock import CONCLUDING_SECONDS, Clock
from thaw.formats import duration
from thaw.planning.costs import Forecast
from thaw.planning.measurements import Choice
from thaw.recipe import Phase
from thaw.selection.budget import longest_training

LEAST_EPOCHS = 4
"""Of thawed stages, as few as a limit leaves them: four were 0.1 ± 0.3 points behind twenty that stop early, and what a
run keeps of them 0.05 ± 0.24 (bench/epochs.py), so they are for those who have no time for more."""

_NEEDS_EPOCHS = ("epochs", "freeze_after", "warmup_epochs")
"""Settings of a phase that are for its number of epochs."""


@dataclass(frozen=True)
class TimeLimit:
    """A limit of time that a plan has to fit into.

    Attributes:
        clock: Of the run that is planned, or of the search.
        trainings: How many trainings of the plan have to fit into it.
    """

    clock: Clock
    trainings: int = 1

    @property
    def left(self) -> float:
        """Seconds that are left for measuring settings and for training."""
        return self.clock.left(CONCLUDING_SECONDS)

    def for_training(self, measuring: float | None) -> float:
        """Seconds for each training, after measurements that take so long; `None` where they depend on training."""
        return (
            longest_training(self.left, self.trainings)
            if measuring is None
            else (self.left - measuring) / self.trainings
        )

    def choice(self, forecast: Forecast, gone: Sequence[Phase]) -> Choice:
        """The limit as a choice of the plan, whose reason says whether training fits into it.

        Args:
            forecast: Of one training.
            gone: Phases that are left out.
        """
        assert self.clock.limit is not None
        seconds, left = self.trainings * forecast.seconds, max(self.left, 0.0)
        what = "training takes" if self.trainings == 1 else f"{self.trainings} trainings take"
        reason = f"{what} {duration(seconds)} at most, of the {duration(left)} that are left for it"
        if seconds > left:
            reason = f"exceeded by up to {duration(seconds - left)}: {reason}"
        for phase in gone:
            reason += f"; phase {phase.name} is left out"
        return Choice("time_limit", duration(self.clock.limit), reason)


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
    # The first phase is the head, or all of a network with random weights, which needs its epochs.
    is_open = [index > 0 and f"phases.{index}" not in has_fixed_epochs for index in range(len(kept))]
    open_seconds = sum(each for each, may_shrink in zip(taken, is_open, strict=False) if may_shrink)
    room = seconds - forecast.extraction_seconds - (sum(taken[: len(kept)]) - open_seconds)
    if room >= open_seconds:
        return tuple(kept)
    return tuple(
        phase.model_copy(update={"epochs": _fewer(phase.epochs, room / open_seconds)}) if may_shrink else phase
        for phase, may_shrink in zip(kept, is_open, strict=True)
    )


def _fewer(epochs: int, fraction: float) -> int:
    """A fraction of some epochs, but no fewer than `LEAST_EPOCHS`, unless there are fewer already."""
    return min(epochs, max(LEAST_EPOCHS, floor(epochs * fraction)))
