"""How the learning rate moves within a phase: a pure function of the step, so a resume needs no state."""

from __future__ import annotations

import math

from thaw.recipe import Phase

RESTARTS = 3
ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 1 / 25


def factor_at(phase: Phase, step: int, steps_per_epoch: int) -> float:
    """Multiple of `phase.lr` at a step, in 0..1; the plateau schedule's own factor comes on top of it.

    constant and plateau: 1. cosine: half a wave down to 0 (Loshchilov & Hutter 2017, SGDR). cosine_restarts: three
    such waves of equal length. one_cycle: a cosine rise from 1/25 over the first 30 % of the phase, then a cosine
    fall (Smith & Topin 2018). Warm-up climbs linearly before the schedule proper begins.
    """
    total = phase.epochs * steps_per_epoch
    warmup = min(int(phase.warmup_epochs * steps_per_epoch), total - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / (total - warmup)
    match phase.schedule:
        case "cosine":
            return _fall(progress)
        case "cosine_restarts":
            return _fall(progress * RESTARTS % 1.0)
        case "one_cycle" if progress < ONE_CYCLE_RISE:
            return 1.0 - (1.0 - ONE_CYCLE_START) * _fall(progress / ONE_CYCLE_RISE)
        case "one_cycle":
            return _fall((progress - ONE_CYCLE_RISE) / (1.0 - ONE_CYCLE_RISE))
        case _:
            return 1.0


def _fall(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))
