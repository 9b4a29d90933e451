"""How training went, on the console: the best epoch, the gain of each phase, predicted and actual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thaw.formats import count, duration, points
from thaw.metrics import METRICS
from thaw.planning.costs import Forecast
from thaw.progress import Reporter
from thaw.recipe import Monitor
from thaw.run_folder import ActualTimes
from thaw.terminal.metric_text import value_text
from thaw.training.gain import PhaseGain
from thaw.training.history import EpochRecord, best_index


def best_line(records: Sequence[EpochRecord], monitor: Monitor) -> str:
    """The best epoch, and how it compares with the first or the last phase."""
    best = best_index(records, monitor)
    if best is None:
        return "no epoch gave a usable result"
    record = records[best]
    metric = METRICS[monitor]
    value = value_text(record.val[monitor], metric)
    line = f"best: phase {record.phase}, epoch {record.epoch}: validation {metric.title} {value}"
    first_phase = [other for other in records if other.phase == records[0].phase]
    start = best_index(first_phase, monitor)
    if start is not None and record.phase != records[0].phase:
        line += f" (phase {records[0].phase} alone: {value_text(first_phase[start].val[monitor], metric)})"
    elif records[-1].phase != record.phase:
        line += f"; phase {records[-1].phase} did not improve on it and is not kept"
    return line


def show_gains(found: Sequence[PhaseGain], monitor: Monitor, reporter: Reporter) -> None:
    """What each phase gained on validation, and the standard error of the gain."""
    if len(found) < 2:
        return
    metric = METRICS[monitor]

    def gain_text(gain: float) -> str:
        return f"{gain:+.4f}" if metric.kind == "loss" else f"{points(gain)} points"

    rows = [
        (
            item.phase,
            f"{item.epochs}",
            duration(item.seconds),
            value_text(abs(item.best), metric),
            "-" if item.before is None else gain_text(item.gain),
            "-" if item.standard_error is None else f"{100 * item.standard_error:.1f} points",
            item.outcome,
        )
        for item in found
    ]
    header = ("phase", "epochs", "took", f"best {metric.title}", "gain", "standard error", "")
    reporter.table("Gain of each phase on validation", header, rows)


@dataclass(frozen=True)
class Duration:
    """Seconds that a part of a run was predicted to take, and took."""

    part: str
    predicted: float
    took: float


def durations(predicted: Forecast, actual: ActualTimes) -> tuple[Duration, ...]:
    """Predicted and actual time of each part; a phase that stopped early is predicted for the epochs that it had."""
    passes = actual.extraction_passes
    extraction = "feature extraction" + (f", {passes} passes" if passes > 1 else "")
    parts = [Duration(extraction, predicted.extraction_seconds * passes, actual.extraction)]
    for index, name, seconds in actual.phases:
        expected = predicted.epoch_seconds[index] * actual.epochs[index]
        parts.append(Duration(f"phase {name}, {count(actual.epochs[index], 'epoch')}", expected, seconds))
    return (*parts, Duration("total", sum(part.predicted for part in parts), sum(part.took for part in parts)))


def show_times(predicted: Forecast, actual: ActualTimes, reporter: Reporter) -> None:
    """Predicted and actual time of each part."""
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
    reporter.say(f"took {duration(actual.seconds)} from the first image to the bundle")
