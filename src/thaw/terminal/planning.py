"""The data and the plan of a run, on the console."""

from __future__ import annotations

from collections.abc import Sequence

from thaw.data.manifest import SPLITS, Manifest
from thaw.formats import count, duration, listed, size
from thaw.memory import obtainable_bytes
from thaw.planning.costs import Forecast
from thaw.planning.plan import Plan
from thaw.progress import Reporter
from thaw.recipe import Phase
from thaw.terminal.classes import show_counts

_UNREADABLE_SHOWN = 5
_KINDS_SHOWN = 8


def show_data(manifest: Manifest, notes: Sequence[str], reporter: Reporter) -> None:
    """Images per class and split, and everything that was left out."""
    splits = [split for split in SPLITS if len(manifest.indices(split))]
    title = f"{count(manifest.readable, 'image')}, {count(len(manifest.classes), 'class', 'classes')}"
    show_counts(title, manifest.counts(), splits, reporter)
    for note in notes:
        reporter.say(note)
    if manifest.ignored:
        kinds = sorted(manifest.ignored, key=lambda item: -item[1])
        files = listed([f"{number:,} {suffix or 'without suffix'}" for suffix, number in kinds], _KINDS_SHOWN)
        reporter.say(f"ignored files that are not images: {files}")
    errors = manifest.errors()
    if errors:
        reporter.say(f"{count(len(errors), 'unreadable image')} left out:")
        for path, reason in errors[:_UNREADABLE_SHOWN]:
            reporter.say(f"  {path}: {reason}")
        if len(errors) > _UNREADABLE_SHOWN:
            reporter.say(f"  … and {len(errors) - _UNREADABLE_SHOWN} more; unreadable.csv of a run lists all")


def show_plan(plan: Plan, reporter: Reporter) -> None:
    """Each choice with its reason, the phases, and the forecast."""
    reporter.table("Plan", ("setting", "value", "reason"), [(c.setting, c.value, c.reason) for c in plan.choices])
    phases = [
        (phase.name, phase.cut, f"{phase.epochs}", *training_method(phase), duration(seconds))
        for phase, seconds in zip(plan.recipe.phases, plan.forecast.phase_seconds, strict=True)
    ]
    reporter.table("Phases", ("phase", "cut", "epochs", "lr", "optimizer", "schedule", "at most"), phases)
    if plan.estimates:
        reporter.say(f"expected accuracy of a linear head: {plan.estimates.sentence()}")
    reporter.say(forecast_line(plan.forecast))
    if plan.forecast.memory_bytes > (room := obtainable_bytes()):
        reporter.say(
            f"WARNING: this process can get {size(room)} of memory now; close other programs, or it will be slow"
        )


def training_method(phase: Phase) -> tuple[str, str, str]:
    """Learning rate, optimizer and schedule of a phase; L-BFGS has no rate, and tries one penalty per epoch."""
    if phase.solver == "lbfgs":
        return "-", "L-BFGS", "penalties"
    return f"{phase.lr:g}", phase.optimizer, phase.schedule


def forecast_line(forecast: Forecast) -> str:
    """What a run should take: time, room on the disk, and memory where it is known."""
    title = f"forecast for {forecast.processes} processes" if forecast.processes > 1 else "forecast"
    each = " in each process" if forecast.processes > 1 else ""
    memory = f", {size(forecast.memory_bytes)} of memory{each}" if forecast.memory_bytes else ""
    training = f"at most {duration(sum(forecast.phase_seconds))} to train"
    if not forecast.disk_bytes:
        return f"{title}: {training}; no features are cached{memory}"
    return (
        f"{title}: {duration(forecast.extraction_seconds)} to extract features, {training}, "
        f"{forecast.disk_bytes / 1e6:,.0f} MB of cached features{memory}"
    )
