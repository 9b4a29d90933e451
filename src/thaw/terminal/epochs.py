"""The table of epochs, row by row as they come, with a bar for each phase."""

from __future__ import annotations

from collections.abc import Sequence

from thaw.progress import OnProgress, Reporter
from thaw.recipe import Monitor, Phase
from thaw.training.history import EpochRecord


class EpochTable:
    """Prints one row an epoch, under a header for each phase."""

    def __init__(self, phases: Sequence[Phase], monitor: Monitor, reporter: Reporter) -> None:
        self._phases = {phase.name: phase for phase in phases}
        self._monitor, self._reporter = monitor, reporter
        self._current = ""
        self._advance: OnProgress = lambda done, total: None

    def add(self, record: EpochRecord, is_best: bool) -> None:
        """Show one more epoch."""
        phase = self._phases[record.phase]
        if record.phase != self._current:
            self._current = record.phase
            column = "penalty" if phase.solver == "lbfgs" else "lr"
            metric = self._monitor.replace("_", " ")
            self._reporter.say(f"\n{'phase':<12} {'epoch':>7} {column:>9} {'train loss':>11} {'val loss':>9}  {metric}")
            self._advance = self._reporter.bar(f"phase {phase.name}")
        rate = record.lr if record.penalty is None else record.penalty
        self._reporter.say(
            f"{record.phase:<12} {record.epoch:>3}/{phase.epochs:<3} {rate:>9.1e} {record.train_loss:>11.4f} "
            f"{record.val.loss:>9.4f}  {abs(record.val.by(self._monitor)):.4f}{'  best' if is_best else ''}"
        )
        self._advance(record.epoch, phase.epochs)
