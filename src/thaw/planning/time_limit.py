"""Phases that fit into a limit of time: without the deepest stages, then with fewer epochs.

A schedule of fewer epochs is planned, instead of one that ends when the time is up: its learning rate comes down to the
end, and a run that is interrupted and resumed stays the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import floor

from thaw.formats import duration
from thaw.planning.costs import Forecast
from thaw.planning.measurements import Choice
from thaw.recipe import Phase, Recipe

LEAST_EPOCHS = 4
"""Of thawed stages, below which only the head trains. Four epochs were 0.1 ± 0.3 points behind twenty that stop early,
and what a run keeps of them 0.05 ± 0.24 (bench/epochs.py)."""


def shortened(
    phases: Sequence[Phase], forecast: Forecast, seconds: float, fixed: Collection[str] = ()
) -> tuple[Phase, ...]:
    """The phases, shortened as far as they have to be to fit into a time, and as they may be.

    Args:
        phases: As planned.
        forecast: What they take.
        seconds: What they may take, with the extraction of features; they may still take longer.
        fixed: Settings of phases that must stay, such as "phases.1.epochs".

    Returns:
        The first of the phases, without optional ones from the third on that do not fit, and the remaining ones with
        no fewer than `LEAST_EPOCHS` epochs.
    """
    named = {key.rpartition(".")[0] for key in fixed}
    taken, kept = forecast.phase_seconds, list(phases)
    while len(kept) > 2 and kept[-1].optional and f"phases.{len(kept) - 1}" not in named:
        if forecast.extraction_seconds + sum(taken[: len(kept)]) <= seconds:
            break
        kept.pop()
    is_open = [phase.cut != "head" and f"phases.{index}.epochs" not in fixed for index, phase in enumerate(kept)]
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


def limit_choices(unlimited: Sequence[Phase], planned: Recipe, seconds: float, left: float) -> list[Choice]:
    """What a time limit has changed, and whether it will be kept.

    Args:
        unlimited: The phases as they would be without it.
        planned: The recipe with the time limit and the phases as they are.
        seconds: What measuring settings and training should take at most.
        left: The seconds that are left for it.
    """
    choices = [
        Choice(f"phases.{index}.epochs", str(phase.epochs), f"instead of {full.epochs}, to fit into the time limit")
        for index, (full, phase) in enumerate(zip(unlimited, planned.phases, strict=False))
        if phase.epochs < full.epochs
    ]
    assert planned.time_limit is not None
    room = f"the {duration(max(left, 0.0))} that are left for it"
    reason = f"measuring and training take {duration(seconds)} at most, of {room}"
    if seconds > left:
        reason = f"exceeded: measuring and training may take {duration(seconds)}, more than {room}"
    for phase in unlimited[len(planned.phases) :]:
        reason += f"; phase {phase.name} is left out"
    return [*choices, Choice("time_limit", duration(planned.time_limit), reason)]
