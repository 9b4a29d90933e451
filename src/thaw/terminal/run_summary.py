"""What a run says on the terminal: its plan, its epochs as rows, its result."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass

from thaw.data.manifest import Manifest
from thaw.formats import points
from thaw.inspection.findings import findings
from thaw.inspection.inspect import Inspection
from thaw.metrics import METRICS, MetricValues, per_epoch_metrics
from thaw.planning.costs import Forecast
from thaw.planning.plan import Plan
from thaw.progress import Reporter
from thaw.recipe import Monitor, Phase
from thaw.run_folder import ActualTimes, InspectionFolder
from thaw.terminal.metric_text import value_text
from thaw.training.gain import PhaseGain
from thaw.training.history import EpochRecord, best_index

METRICS_HEADER = (
    "phase",
    "epoch",
    "cut",
    "lr",
    "penalty",
    "train_loss",
    *(f"val_{metric.name}" for metric in per_epoch_metrics()),
    "seconds",
)
_UNREADABLE_SHOWN = _SUSPECTS_SHOWN = 5


def metrics_row(record: EpochRecord) -> tuple[object, ...]:
    """One epoch as a row under `METRICS_HEADER`."""
    val = {f"val_{name}": f"{value:.6g}" for name, value in record.val.by_name.items()}
    values = (val.get(column, "") for column in METRICS_HEADER if column.startswith("val_"))
    rates = ("" if value is None else f"{value:.6g}" for value in (record.lr, record.penalty))
    head = (record.phase, record.epoch, record.cut, *rates, f"{record.train_loss:.6g}")
    return (*head, *values, f"{record.seconds:.3f}")


def read_metrics(text: str) -> tuple[EpochRecord, ...]:
    """The records of a metrics.csv; those of release 0.1 have no column `penalty`."""
    return tuple(
        EpochRecord(
            phase=row["phase"],
            epoch=int(row["epoch"]),
            cut=row["cut"],
            lr=_optional(row["lr"]),
            penalty=_optional(row.get("penalty")),
            train_loss=float(row["train_loss"]),
            val=MetricValues(
                {name.removeprefix("val_"): float(row[name]) for name in row if name.startswith("val_") and row[name]}
            ),
            seconds=float(row["seconds"]),
        )
        for row in csv.DictReader(text.splitlines())
    )


def _optional(cell: str | None) -> float | None:
    return float(cell) if cell else None


def show_data(manifest: Manifest, notes: Sequence[str], reporter: Reporter) -> None:
    """Images per class and split, and everything that was left out."""
    splits = [split for split in ("train", "val", "test") if len(manifest.indices(split))]
    counts = manifest.counts()
    rows = [(name, *(str(counts[name].get(split, 0)) for split in splits)) for name in manifest.classes]
    reporter.table(f"{len(manifest):,} images, {len(manifest.classes)} classes", ("class", *splits), rows)
    for note in notes:
        reporter.say(note)
    if manifest.ignored:
        files = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in manifest.ignored)
        reporter.say(f"ignored files that are not images: {files}")
    errors = manifest.errors()
    if errors:
        reporter.say(f"{len(errors)} images cannot be read and are left out:")
        for path, reason in errors[:_UNREADABLE_SHOWN]:
            reporter.say(f"  {path}: {reason}")
        if len(errors) > _UNREADABLE_SHOWN:
            reporter.say(f"  … and {len(errors) - _UNREADABLE_SHOWN} more; all of them are in unreadable.csv")


def show_plan(plan: Plan, reporter: Reporter) -> None:
    """Each choice with its reason, the phases, and what they should take."""
    reporter.table("Plan", ("setting", "value", "why"), [(c.setting, c.value, c.reason) for c in plan.choices])
    phases = [
        (phase.name, phase.cut, f"{phase.epochs}", *how(phase), duration(seconds))
        for phase, seconds in zip(plan.recipe.phases, plan.forecast.phase_seconds, strict=True)
    ]
    reporter.table("Phases", ("phase", "cut", "epochs", "lr", "optimizer", "schedule", "at most"), phases)
    reporter.say(_forecast_line(plan.forecast))


def how(phase: Phase) -> tuple[str, str, str]:
    """Learning rate, optimizer and schedule; a solved head knows no rate, and its epochs are penalties."""
    if phase.solver == "lbfgs":
        return "-", "L-BFGS", "penalties"
    return f"{phase.lr:g}", phase.optimizer, phase.schedule


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
            "" if item.before is None else "kept" if item.gain > 0 else "equal" if item.gain == 0 else "not kept",
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


def durations(predicted: Forecast, spent: ActualTimes) -> tuple[Duration, ...]:
    """Predicted and actual time of what was done; phases that stopped early are predicted for the epochs they had."""
    looked = "extract features" + (f", {spent.extraction_passes} times" if spent.extraction_passes > 1 else "")
    parts = [Duration(looked, predicted.extraction_seconds * spent.extraction_passes, spent.extraction)]
    for index, name, seconds in spent.phases:
        expected = predicted.epoch_seconds[index] * spent.epochs[index]
        parts.append(Duration(f"phase {name}, {spent.epochs[index]} epochs", expected, seconds))
    return (*parts, Duration("total", sum(part.predicted for part in parts), sum(part.took for part in parts)))


def show_times(predicted: Forecast, spent: ActualTimes, reporter: Reporter) -> None:
    """Predicted and actual time of what was done."""
    shown = [
        (
            part.part,
            duration(part.predicted),
            duration(part.took),
            f"{part.took / part.predicted:.2f}x" if part.predicted > 0 else "-",
        )
        for part in durations(predicted, spent)
    ]
    reporter.table("Time", ("", "predicted", "took", "ratio"), shown)
    reporter.say(f"took {duration(spent.seconds)} from the first image to the bundle")


def show_inspection(found: Inspection, folder: InspectionFolder, reporter: Reporter) -> None:
    """Images per class, every finding, the labels that look most wrong, and where the pictures are."""
    counts, splits = found.counts(), found.splits
    rows = [(name, *(f"{count.get(split, 0):,}" for split in splits)) for name, count in counts.items()]
    reporter.table(f"{len(found.manifest):,} images, {len(counts)} classes", ("class", *splits), rows)
    reporter.say("")
    marks = {"good": "+", "note": "-", "warning": "!", "alarm": "!!"}
    for finding in findings(found):
        reporter.say(f"{marks[finding.severity]:>2} {finding.text}")
    if found.label_errors:
        paths, classes = found.manifest.column("path"), found.manifest.classes
        wrong = [
            (paths[item.row], classes[item.given], classes[item.suggested], f"{item.suggested_probability:.0%}")
            for item in found.label_errors[:_SUSPECTS_SHOWN]
        ]
        reporter.table("Labels that look most wrong", ("image", "label", "looks like", "probability"), wrong)
    reporter.say(f"\npage {folder.page}, all of it as JSON {folder.findings}")


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _forecast_line(forecast: Forecast) -> str:
    training = f"at most {duration(sum(forecast.phase_seconds))} to train"
    if not forecast.disk_bytes:
        return f"predicted: {training}; nothing is stored"
    return (
        f"predicted: {duration(forecast.extraction_seconds)} to look at every image once, {training}, "
        f"{forecast.disk_bytes / 1e6:,.0f} MB of stored features"
    )
