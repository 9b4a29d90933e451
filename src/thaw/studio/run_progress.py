"""How far a run is, from the files that it writes: its plan with reasons, its epochs, the time left, its result."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from thaw.errors import DataError, RecipeError
from thaw.metrics import METRICS
from thaw.run_folder import PlanFile, RunFolder
from thaw.studio.planned_run import PlannedRun
from thaw.studio.training import Training
from thaw.training.history import EpochRecord

LOG_LINES = 14
_RESULTS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc")


@dataclass(frozen=True)
class _Files:
    """What a run has written; `None` and empty where it has not yet, or is just about to."""

    plan: PlanFile | None
    epochs: tuple[EpochRecord, ...]
    phases: tuple[tuple[str, int], ...]
    monitor: str


def progress(training: Training) -> dict[str, Any]:
    """Everything about the run that was begun last, the plan of the next one, and the queue, as plain values.

    state: `none`, `starting` (it reads images and plans), `training`, `finished`, `stopped` (it can be resumed) or
    `failed` (it has no folder, and the log says why).
    """
    resumable = training.resumable
    return {
        **_latest(training),
        "resumable": resumable.path.name if resumable else "",
        "queue": [
            {"number": job.number, "when": job.when, "resumes": job.request.resumes, "images": job.request.images}
            | {"settings": dict(job.request.settings), "is_planned": job.request.is_planned}
            for job in training.waiting
        ],
        "problem": training.problem or training.refusal,
        "failed": [
            {"number": begun.job.number, "settings": dict(begun.job.request.settings), "log": training.log(begun, 1)}
            for begun in training.failed
        ],
        "next": _planned(training.planned),
    }


def _planned(planned: PlannedRun) -> dict[str, Any]:
    """The plan of the next run. state: `none`, `planning`, `ready` or `failed`, and the log says why."""
    request, run = planned.request, planned.run
    if request is None:
        return {"state": "none"}
    plan = _read(run).plan if run else None
    return {
        "state": "planning" if planned.is_running else "ready" if plan else "failed",
        "edits": request.edits,
        "settings": dict(request.settings),
        "plan": _choices(plan),
        "predicted": plan.predicted.seconds if plan else None,
        "expected": plan.estimates.sentence() if plan and plan.estimates else "",
        "log": planned.log(LOG_LINES),
    }


def _choices(plan: PlanFile | None) -> list[dict[str, str]]:
    choices = plan.choices if plan else ()
    return [{"setting": one.setting, "value": one.value, "reason": one.reason} for one in choices]


def _latest(training: Training) -> dict[str, Any]:
    begun, run = training.latest, training.run
    is_running = training.is_running or training.is_beginning
    if begun is None:
        return {"state": "none"}
    request = begun.job.request
    found = _read(run) if run else _Files(None, (), (), "")
    return {
        "state": _state(is_running, run, found),
        "run": run.path.name if run else "",
        "when": begun.when,
        "images": request.images,
        "edits": request.edits,
        "settings": dict(request.settings),
        "plan": _choices(found.plan),
        "predicted": found.plan.predicted.seconds if found.plan else None,
        "left": _seconds_left(found, run) if is_running and run and found.plan else None,
        "phases": [{"name": name, "epochs": epochs} for name, epochs in found.phases],
        "monitor": _metric(found.monitor),
        "epochs": [_epoch(record, found.monitor) for record in found.epochs],
        "log": training.log(begun, LOG_LINES),
    }


def _state(is_running: bool, run: RunFolder | None, found: _Files) -> str:
    if is_running:
        return "training" if found.plan else "starting"
    if run is None:
        return "failed"
    return "finished" if run.is_finished else "stopped"


def _read(run: RunFolder) -> _Files:
    """The files of a run, which it may be writing."""
    try:
        plan = run.read_plan()
        epochs = run.read_epochs() if run.metrics.is_file() else ()
        if plan is None:
            return _Files(None, epochs, (), "")
        recipe = run.read_recipe()
    except (DataError, RecipeError):
        return _Files(None, (), (), "")
    return _Files(plan, epochs, tuple((phase.name, phase.epochs) for phase in recipe.phases), recipe.monitor)


def _epoch(record: EpochRecord, monitor: str) -> dict[str, Any]:
    values = record.val.by_name
    return {
        "phase": record.phase,
        "epoch": record.epoch,
        "train_loss": _finite(record.train_loss),
        "val_loss": _finite(values.get("loss")),
        "value": _finite(values.get(monitor)),
    }


def _metric(name: str) -> dict[str, Any] | None:
    """What tells how to show a metric; `None` where it is not known yet."""
    metric = METRICS.get(name)
    if metric is None:
        return None
    return {"title": metric.title, "kind": metric.kind, "higher_is_better": metric.higher_is_better}


def _finite(value: float | None) -> float | None:
    """The value, `None` for one that JSON has no number for: the loss of a run that diverged."""
    return value if value is not None and math.isfinite(value) else None


def _seconds_left(found: _Files, run: RunFolder) -> float:
    """At most so many seconds: phases may stop early or be skipped."""
    assert found.plan is not None
    predicted, names = found.plan.predicted, [name for name, _ in found.phases]
    if not found.epochs:
        return max(0.0, predicted.seconds - (time.time() - run.plan.stat().st_mtime))
    now = names.index(found.epochs[-1].phase)
    own = [record.seconds for record in found.epochs if record.phase == names[now]]
    left = (found.phases[now][1] - len(own)) * _typical(own)
    return max(0.0, left) + sum(predicted.phase_seconds[now + 1 :])


def _typical(seconds: Sequence[float]) -> float:
    """The seconds of an epoch; the first one takes longer."""
    return sorted(seconds)[len(seconds) // 2]


def result(run: RunFolder) -> dict[str, Any]:
    """What a finished run reached, as plain values: metrics of validation and test with their 95 % intervals."""
    evaluation = run.read_evaluation()
    splits = {}
    for split, found in evaluation.evaluations.items():
        metrics = [
            {"title": METRICS[name].title, "value": one.value, "low": one.low, "high": one.high}
            for name in _RESULTS
            if (one := found.overall.get(name)) is not None
        ]
        splits[split] = {"images": found.images, "metrics": metrics}
    return {"run": run.path.name, "splits": splits}
