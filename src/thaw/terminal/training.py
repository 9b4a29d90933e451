"""How training went, on the console: the epoch that is kept, the gain of each phase, predicted and actual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thaw.formats import count, duration, points, size
from thaw.metrics import METRICS, Metric
from thaw.planning.costs import Forecast
from thaw.progress import Reporter
from thaw.recipe import Monitor
from thaw.run_folder import ActualCosts
from thaw.terminal.metric_text import value_text
from thaw.training.gain import KEPT_FOR, KeepRule, PhaseGain, kept_index
from thaw.training.history import EpochRecord
from thaw.training.skipping import SkippedPhase


def kept_line(records: Sequence[EpochRecord], gains: Sequence[PhaseGain], monitor: Monitor) -> str:
    """The epoch that is kept, and how it compares with the first phase."""
    kept, metric = kept_index(records, gains, monitor), METRICS[monitor]
    if kept is None:
        return "no epoch gave a usable result"
    record, first = records[kept], gains[0]
    value = value_text(record.val[monitor], metric)
    line = f"kept: phase {record.phase}, epoch {record.epoch}: validation {metric.title} {value}"
    return line if record.phase == first.phase else f"{line} (phase {first.phase} alone: {_value(first, metric)})"


def show_gains(gains: Sequence[PhaseGain], skipped: Sequence[SkippedPhase], rule: KeepRule, reporter: Reporter) -> None:
    """What each phase gained on validation, the standard error of the gain, and the time that skipped phases saved."""
    if len(gains) + len(skipped) < 2:
        return
    metric = METRICS[rule.monitor]

    def gain_text(gain: float) -> str:
        return f"{gain:+.4f}" if metric.kind == "loss" else f"{points(gain)} points"

    rows = [
        (
            item.phase,
            f"{item.epochs}",
            duration(item.seconds),
            _value(item, metric),
            "-" if item.before is None else gain_text(item.gain),
            "-" if item.standard_error is None else gain_text(item.standard_error).lstrip("+"),
            item.outcome,
        )
        for item in gains
    ]
    rows += [
        (phase.phase, "-", "-", "-", "-", "-", f"skipped, which saved at most {duration(phase.seconds)}")
        for phase in skipped
    ]
    header = ("phase", "epochs", "took", f"best {metric.title}", "gain", "standard error", "")
    title = f"Gain of each phase on validation; a later phase is kept for {KEPT_FOR[rule.keep]}"
    reporter.table(title, header, rows)


def _value(gain: PhaseGain, metric: Metric) -> str:
    return value_text(abs(gain.best), metric)


@dataclass(frozen=True)
class Duration:
    """Seconds that a part of a run was predicted to take, and took."""

    part: str
    predicted: float
    took: float


def durations(predicted: Forecast, actual: ActualCosts) -> tuple[Duration, ...]:
    """Predicted and actual time of each part; a phase that stopped early is predicted for the epochs that it had.

    Of a resumed run there is no total, because what it took before is not all known.
    """
    passes = actual.extraction_passes
    extraction = "feature extraction" + (f", {passes} passes" if passes > 1 else "")
    extraction += " since the run was resumed" if actual.is_resumed else ""
    parts = [Duration(extraction, predicted.extraction_seconds * passes, actual.extraction)]
    for index, name, seconds in actual.phases:
        expected = predicted.epoch_seconds[index] * actual.epochs[index]
        parts.append(Duration(f"phase {name}, {count(actual.epochs[index], 'epoch')}", expected, seconds))
    if actual.is_resumed:
        return tuple(parts)
    return (*parts, Duration("total", sum(part.predicted for part in parts), sum(part.took for part in parts)))


def show_times(predicted: Forecast, actual: ActualCosts, reporter: Reporter) -> None:
    """Predicted and actual time of each part, and the memory that the run took."""
    shown = [
        (
            part.part,
            duration(part.predicted),
            duration(part.took),
            f"{part.took / part.predicted:.2f}x" if part.predicted > 0 else "-",
        )
        for part in durations(predicted, actual)
    ]
    reporter.table("Time", ("", "predicted", "took", "ratio"), shown)
    since = "since the run was resumed" if actual.is_resumed else "from the first image to the bundle"
    memory = f", and {size(actual.memory_bytes)} of memory" if actual.memory_bytes else ""
    reporter.say(f"took {duration(actual.seconds)} {since}{memory}")
