"""Learning-rate schedules: pure functions of the step, so that a resumed run needs no state."""

from __future__ import annotations

import math
from typing import assert_never

from thaw.recipe import Phase

RESTARTS = 3
ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 1 / 25


def factor_at(phase: Phase, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step as a fraction of `phase.lr`, after a linear warm-up.

    constant, plateau: 1; the plateau schedule is multiplied by `plateau_factor`. cosine: half a wave down to 0
    (Loshchilov & Hutter 2017, SGDR). cosine_restarts: three such half waves of equal length. one_cycle: a cosine rise
    from 1/25 over the first 30 % of the phase in place of the warm-up, then a cosine decay (Smith & Topin 2018).

    Args:
        phase: Gives the schedule, its length in epochs and the warm-up.
        step: Counts from 0 over all epochs of the phase.
        steps_per_epoch: Batches in one epoch.

    Returns:
        A factor in 0..1.
    """
    total = phase.epochs * steps_per_epoch
    warmup_epochs = 0.0 if phase.schedule == "one_cycle" else phase.warmup_epochs
    warmup = min(int(warmup_epochs * steps_per_epoch), total - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / (total - warmup)
    match phase.schedule:
        case "constant" | "plateau":
            return 1.0
        case "cosine":
            return _cosine_decay(progress)
        case "cosine_restarts":
            return _cosine_decay(progress * RESTARTS % 1.0)
        case "one_cycle":
            if progress < ONE_CYCLE_RISE:
                return 1.0 - (1.0 - ONE_CYCLE_START) * _cosine_decay(progress / ONE_CYCLE_RISE)
            return _cosine_decay((progress - ONE_CYCLE_RISE) / (1.0 - ONE_CYCLE_RISE))
        case unknown:
            assert_never(unknown)


def _cosine_decay(progress: float) -> float:
    """From 1 at progress 0 to 0 at progress 1."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))
