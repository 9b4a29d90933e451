"""What happened, epoch by epoch, and what follows from it: the best epoch, when to stop, when to slow down.

Everything here is a pure function of the records, so an interrupted run that has its records back goes on exactly as
it would have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from thaw.classifier.metrics import Metrics
from thaw.recipe import Monitor, Phase

PLATEAU_PATIENCE = 2
PLATEAU_FACTOR = 0.3
PENALTY_PATIENCE = 2


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of one phase, or one penalty where the head is solved by L-BFGS.

    lr: learning rate of the last step; `None` where the head is solved. train_loss: mean over the steps. penalty: L2
    penalty of a solved head; `None` elsewhere, and in records of release 0.1, which have the penalty as `lr`.
    """

    phase: str
    epoch: int
    cut: str
    lr: float | None
    train_loss: float
    val: Metrics
    seconds: float
    penalty: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` turns back into an equal record."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EpochRecord:
        """The record that `to_json` gave."""
        return cls(**{**values, "val": Metrics(**values["val"])})


def is_better(candidate: Metrics, best: Metrics, monitor: Monitor) -> bool:
    """Whether a result beats the best: a higher monitored value, or an equal one at a lower loss."""
    return (candidate.by(monitor), -candidate.loss) > (best.by(monitor), -best.loss)


def best_index(records: Sequence[EpochRecord], monitor: Monitor) -> int | None:
    """Position of the best record, the earliest of equals; `None` when there is none with a finite loss."""
    best: int | None = None
    for index, record in enumerate(records):
        if not math.isfinite(record.val.loss):
            continue
        if best is None or is_better(record.val, records[best].val, monitor):
            best = index
    return best


def should_stop(records: Sequence[EpochRecord], phase: Phase, monitor: Monitor) -> bool:
    """Early stopping: no better epoch within the phase for `patience` epochs.

    A solved head is done when 2 penalties in a row gave a higher validation loss than the best: with the penalty the
    loss falls and then rises, and what comes after would only be fitted better to the training images.
    """
    own = _of_phase(records, phase)
    if phase.solver == "lbfgs":
        losses = [record.val.loss for record in own]
        return bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= PENALTY_PATIENCE
    best = best_index(own, monitor)
    return phase.patience is not None and best is not None and len(own) - 1 - best >= phase.patience


def plateau_factor(records: Sequence[EpochRecord], phase: Phase) -> float:
    """Learning-rate factor of the plateau schedule: times 0.3 after each 2 epochs in a row without a lower loss."""
    factor, lowest, waited = 1.0, math.inf, 0
    for record in _of_phase(records, phase):
        if record.val.loss < lowest:
            lowest, waited = record.val.loss, 0
        else:
            waited += 1
        if waited == PLATEAU_PATIENCE:
            factor, waited = factor * PLATEAU_FACTOR, 0
    return factor


def divergence(records: Sequence[EpochRecord], phase: Phase) -> str | None:
    """Why the phase must stop, or `None`: a loss that is not finite, or four times that of the first epoch."""
    own = _of_phase(records, phase)
    if not own:
        return None
    last = own[-1]
    if not math.isfinite(last.train_loss):
        return f"the loss became {last.train_loss}"
    if len(own) > 1 and last.train_loss > 4.0 * max(own[0].train_loss, 0.5):
        return f"the loss grew from {own[0].train_loss:.3g} to {last.train_loss:.3g}"
    return None


def _of_phase(records: Sequence[EpochRecord], phase: Phase) -> list[EpochRecord]:
    return [record for record in records if record.phase == phase.name]
