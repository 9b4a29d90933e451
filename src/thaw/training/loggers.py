"""Loggers of a run in addition to metrics.csv: TensorBoard, MLflow, W&B, trackio.

Each is a small class with the same calls. One that fails is dropped with a message, and training continues.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from thaw.errors import RecipeError
from thaw.progress import Reporter
from thaw.recipe import Recipe
from thaw.settings import flatten
from thaw.training.history import EpochRecord

PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb", "trackio": "trackio"}
"""The Python package of each logger."""

_USAGE_REPORTS = {
    "mlflow": ("MLFLOW_DISABLE_TELEMETRY", "true"),
    "wandb": ("WANDB_ERROR_REPORTING", "false"),
    "trackio": ("GRADIO_ANALYTICS_ENABLED", "False"),
}
"""The environment variable that stops each package from reporting its use, which no logger needs."""

_PROJECT = "thaw"


class Logger(Protocol):
    """Receives the values of one run."""

    def epoch(self, values: Mapping[str, float], step: int) -> None:
        """Log one epoch; `step` counts epochs over all phases, from 1."""
        ...

    def finish(self, values: Mapping[str, float]) -> None:
        """Log the final values and close."""
        ...

    def close(self) -> None:
        """Close without final values, because training was interrupted."""
        ...


class Loggers:
    """All loggers of a run; one that fails is dropped with a message."""

    def __init__(self, loggers: Mapping[str, Logger], reporter: Reporter) -> None:
        self._loggers, self._reporter, self._logged = dict(loggers), reporter, 0

    def epochs(self, records: Sequence[EpochRecord]) -> None:
        """Log the epochs that were not logged before, given the records of all."""
        for step, record in enumerate(records[self._logged :], start=self._logged + 1):
            values = logged_values(record)
            self._call(lambda logger, values=values, step=step: logger.epoch(values, step))
        self._logged = len(records)

    def skip(self, epochs: int) -> None:
        """Mark the first epochs of a resumed run as logged."""
        self._logged = epochs

    def finish(self, values: Mapping[str, float]) -> None:
        """Log the final values and close all loggers."""
        self._call(lambda logger: logger.finish(values))
        self._loggers.clear()

    def close(self) -> None:
        """Close the loggers that have not finished, because training was interrupted."""
        self._call(lambda logger: logger.close())
        self._loggers.clear()

    def _call(self, log: Callable[..., None]) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                log(logger)
            except Exception as error:
                del self._loggers[name]
                self._reporter.say(f"{name} failed ({type(error).__name__}: {error}); training continues without it")


def check_loggers(names: Iterable[str]) -> None:
    """Raise `RecipeError` for a logger whose package is not installed."""
    for name in names:
        if find_spec(PACKAGES[name]) is None:
            raise RecipeError(f"loggers: {name} is not installed; pip install {PACKAGES[name]}, or remove it")


def open_loggers(recipe: Recipe, folder: Path, reporter: Reporter) -> Loggers:
    """The loggers of a recipe for a run in `folder`, with the recipe as configuration."""
    settings = dict(flatten(recipe.model_dump(mode="json")))
    loggers: dict[str, Logger] = {}
    for name in recipe.loggers:
        if name in _USAGE_REPORTS:
            os.environ.setdefault(*_USAGE_REPORTS[name])
        try:
            loggers[name] = _LOGGERS[name](folder, settings)
        except Exception as error:
            reporter.say(f"{name} failed ({type(error).__name__}: {error}); training continues without it")
    return Loggers(loggers, reporter)


def logged_values(record: EpochRecord) -> dict[str, float]:
    """The values of one epoch by name, such as `val/accuracy`."""
    validation = {f"val/{name}": value for name, value in record.val.by_name.items()}
    rates = {name: value for name, value in (("lr", record.lr), ("penalty", record.penalty)) if value is not None}
    return {"train/loss": record.train_loss, **rates, "seconds": record.seconds, **validation}


class _TensorBoard:
    """Event files in the run folder, shown by `tensorboard --logdir runs`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(folder / "tensorboard"))

    def epoch(self, values: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()

    def finish(self, values: Mapping[str, float]) -> None:
        self.epoch(_final(values), 0)
        self.close()

    def close(self) -> None:
        self._writer.close()


class _MLflow:
    """A run of the experiment `thaw` at MLflow's configured tracking URI, this machine by default.

    By a client, not by the functions of the package: these have one open run and one experiment, which are the user's.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param
        from mlflow.tracking.context.registry import resolve_tags

        self._client = MlflowClient()
        known = self._client.get_experiment_by_name(_PROJECT)
        experiment = known.experiment_id if known else self._client.create_experiment(_PROJECT)
        self._run = self._client.create_run(experiment, tags=resolve_tags(), run_name=folder.name).info.run_id
        parameters = [Param(name, str(value)[:500]) for name, value in settings.items()]
        self._client.log_batch(self._run, params=parameters)

    def epoch(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._run, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def finish(self, values: Mapping[str, float]) -> None:
        self.epoch(_final(values), 0)
        self._client.set_terminated(self._run)

    def close(self) -> None:
        self._client.set_terminated(self._run, status="KILLED")


class _Wandb:
    """A run of the project `thaw`, next to the one that the user may have open."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], package: str = "wandb", **how: str) -> None:
        self._run = import_module(package).init(project=_PROJECT, name=folder.name, config=dict(settings), **how)

    def epoch(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, values: Mapping[str, float]) -> None:
        self._run.log(_final(values))
        self.close()

    def close(self) -> None:
        self._run.finish()


def _final(values: Mapping[str, float]) -> dict[str, float]:
    return {f"final/{name}": value for name, value in values.items()}


_LOGGERS: dict[str, Any] = {
    "tensorboard": _TensorBoard,
    "mlflow": _MLflow,
    # Else an open run of the user would be ended, or be taken for this one.
    "wandb": lambda folder, settings: _Wandb(folder, settings, reinit="create_new"),
    # It has the same API but for this.
    "trackio": lambda folder, settings: _Wandb(folder, settings, "trackio"),
}
