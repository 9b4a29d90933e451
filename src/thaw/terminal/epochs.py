"""The table of epochs on the console: one row per epoch, and a progress bar per phase."""

from __future__ import annotations

from collections.abc import Sequence

from thaw.metrics import METRICS
from thaw.progress import OnProgress, Reporter
from thaw.recipe import Monitor, Phase
from thaw.terminal.metric_text import value_text
from thaw.training.history import EpochRecord


class EpochTable:
    """Prints a header for each phase and one row per epoch."""

    def __init__(self, phases: Sequence[Phase], monitor: Monitor, reporter: Reporter) -> None:
        self._phases = {phase.name: phase for phase in phases}
        self._monitor, self._reporter = monitor, reporter
        self._current = ""
        self._advance: OnProgress = lambda done, total: None

    def add(self, record: EpochRecord, is_best: bool) -> None:
        """Print one more epoch; `is_best` marks it as the best of its phase so far."""
        phase = self._phases[record.phase]
        metric = METRICS[self._monitor]
        if record.phase != self._current:
            self._current = record.phase
            column = "penalty" if phase.solver == "lbfgs" else "lr"
            columns = f"{'phase':<12} {'epoch':>7} {column:>9} {'train loss':>11} {'val loss':>9}  {metric.title}"
            self._reporter.say(f"\n{columns}")
            self._advance = self._reporter.bar(f"phase {phase.name}")
        value = value_text(record.val[self._monitor], metric)
        rate = record.lr if record.penalty is None else record.penalty
        self._reporter.say(
            f"{record.phase:<12} {record.epoch:>3}/{phase.epochs:<3} {rate:>9.1e} {record.train_loss:>11.4f} "
            f"{record.val.loss:>9.4f}  {value}{'  best' if is_best else ''}"
        )
        self._advance(record.epoch, phase.epochs)
