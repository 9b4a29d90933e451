"""The record of each epoch, and what follows from them: the best epoch, early stopping, the plateau schedule.

Everything here is a pure function of the records, so a resumed run decides as the uninterrupted one would have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from thaw.metrics import MetricValues
from thaw.recipe import Monitor, Phase

PLATEAU_PATIENCE = 2
PLATEAU_FACTOR = 0.3
PENALTY_PATIENCE = 2


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of one phase, or one penalty where the head is fitted by L-BFGS.

    Attributes:
        phase: Name of the phase.
        epoch: Number of the epoch in its phase, from 1.
        cut: Name of the cut.
        lr: Learning rate of the last step; `None` where L-BFGS fits the head.
        train_loss: Mean training loss over the images.
        val: Metrics on validation after the epoch.
        seconds: Duration.
        penalty: L2 penalty where L-BFGS fits the head; `None` elsewhere, and in records of release 0.1, which have the
            penalty as `lr`.
        without: The monitored metric without each block of validation images (`thaw.metrics.jackknife`), from which
            follows the standard error of its difference to another epoch; empty in release 0.1 and in metrics.csv.
    """

    phase: str
    epoch: int
    cut: str
    lr: float | None
    train_loss: float
    val: MetricValues
    seconds: float
    penalty: float | None = None
    without: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` reads."""
        return {**asdict(self), "val": dict(self.val.by_name)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> EpochRecord:
        """The record that `to_json` gave."""
        without = tuple(values.get("without", ()))
        return cls(**{**values, "val": MetricValues(values["val"]), "without": without})


def is_better(candidate: MetricValues, best: MetricValues, monitor: Monitor) -> bool:
    """Whether the monitored metric is better, or equal at a lower loss."""
    return (candidate.by(monitor), -candidate.loss) > (best.by(monitor), -best.loss)


def best_index(records: Sequence[EpochRecord], monitor: Monitor) -> int | None:
    """Index of the best record, the earliest in case of a tie; `None` if none has a finite loss."""
    best: int | None = None
    for index, record in enumerate(records):
        if not math.isfinite(record.val.loss):
            continue
        if best is None or is_better(record.val, records[best].val, monitor):
            best = index
    return best


def should_stop(records: Sequence[EpochRecord], phase: Phase, monitor: Monitor) -> bool:
    """Early stopping: no better epoch within the phase for `patience` epochs.

    A solved head stops after 2 consecutive penalties with a validation loss above the lowest: as the penalty decreases
    the loss falls and then rises, and weaker penalties would only overfit.
    """
    of_phase = _of_phase(records, phase)
    if phase.solver == "lbfgs":
        losses = [record.val.loss for record in of_phase]
        return bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= PENALTY_PATIENCE
    best = best_index(of_phase, monitor)
    return phase.patience is not None and best is not None and len(of_phase) - 1 - best >= phase.patience


def plateau_factor(records: Sequence[EpochRecord], phase: Phase) -> float:
    """Learning-rate factor of the plateau schedule: times 0.3 after each 2 epochs without a lower validation loss."""
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
    """Why training diverged, or `None`: the training loss is not finite, or four times that of the first epoch."""
    of_phase = _of_phase(records, phase)
    if not of_phase:
        return None
    first, last = of_phase[0], of_phase[-1]
    if not math.isfinite(last.train_loss):
        return f"the loss became {last.train_loss}"
    if len(of_phase) > 1 and last.train_loss > 4.0 * max(first.train_loss, 0.5):
        return f"the loss grew from {first.train_loss:.3g} to {last.train_loss:.3g}"
    return None


def _of_phase(records: Sequence[EpochRecord], phase: Phase) -> list[EpochRecord]:
    return [record for record in records if record.phase == phase.name]
