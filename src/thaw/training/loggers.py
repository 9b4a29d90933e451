"""Where a run tells its figures while it goes on, beside metrics.csv: TensorBoard, MLflow, W&B, trackio.

Each is a small class with the same three calls. One that fails is dropped with a line; the run goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from thaw.errors import RecipeError
from thaw.progress import Reporter
from thaw.recipe import Recipe
from thaw.settings import flatten
from thaw.training.history import EpochRecord

PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb", "trackio": "trackio"}
"""The package that each logger needs."""

_PROJECT = "thaw"


class Logger(Protocol):
    """Is told the figures of one run; `step` counts epochs over all phases, from 1."""

    def epoch(self, figures: Mapping[str, float], step: int) -> None:
        """One more epoch is done."""
        ...

    def finish(self, figures: Mapping[str, float]) -> None:
        """The run is over, with these final figures."""
        ...


class Loggers:
    """Several loggers as one; the first failure of one is said and is its last."""

    def __init__(self, loggers: Mapping[str, Logger], reporter: Reporter) -> None:
        self._loggers, self._reporter, self._told = dict(loggers), reporter, 0

    def epochs(self, records: Sequence[EpochRecord]) -> None:
        """Tell what was not told yet; of a run that goes on, only what is new."""
        for step, record in enumerate(records[self._told :], start=self._told + 1):
            figures = logged_values(record)
            self._each(lambda logger, figures=figures, step=step: logger.epoch(figures, step))
        self._told = len(records)

    def skip(self, epochs: int) -> None:
        """So many epochs were told by the run that this one goes on with."""
        self._told = epochs

    def finish(self, figures: Mapping[str, float]) -> None:
        """Tell the final figures."""
        self._each(lambda logger: logger.finish(figures))

    def _each(self, tell: Any) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                tell(logger)
            except Exception as error:
                del self._loggers[name]
                self._reporter.say(f"{name} takes no more figures ({type(error).__name__}: {error}); the run goes on")


def check_loggers(names: Iterable[str]) -> None:
    """Raise `RecipeError` for a logger whose package is not installed."""
    for name in names:
        if find_spec(PACKAGES[name]) is None:
            raise RecipeError(f"loggers: {name} is not installed; pip install {PACKAGES[name]}, or leave it out")


def open_loggers(recipe: Recipe, folder: Path, reporter: Reporter) -> Loggers:
    """The loggers that a recipe asks for, told its settings, for a run in `folder`."""
    settings = dict(flatten(recipe.model_dump(mode="json")))
    made: dict[str, Logger] = {}
    for name in recipe.loggers:
        try:
            made[name] = _MAKERS[name](folder, settings)
        except Exception as error:
            reporter.say(f"{name} cannot be used ({type(error).__name__}: {error}); the run goes on without it")
    return Loggers(made, reporter)


def logged_values(record: EpochRecord) -> dict[str, float]:
    """What is told of one epoch."""
    validation = {f"val/{name}": float(value) for name, value in asdict(record.val).items()}
    rates = {"lr": record.lr, "penalty": record.penalty}
    given = {name: value for name, value in rates.items() if value is not None}
    return {"train/loss": record.train_loss, **given, "seconds": record.seconds, **validation}


class _TensorBoard:
    """Event files in the run folder, which `tensorboard --logdir runs` shows."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(folder / "tensorboard"))

    def epoch(self, figures: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self._writer.flush()

    def finish(self, figures: Mapping[str, float]) -> None:
        self.epoch({f"final/{name}": value for name, value in figures.items()}, 0)
        self._writer.close()


class _MLflow:
    """A run of the experiment `thaw`, where MLflow's own settings say, which by themselves are this machine."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment(_PROJECT)
        mlflow.start_run(run_name=folder.name)
        mlflow.log_params({name: str(value)[:500] for name, value in settings.items()})

    def epoch(self, figures: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(figures), step=step)

    def finish(self, figures: Mapping[str, float]) -> None:
        self._mlflow.log_metrics({f"final/{name}": value for name, value in figures.items()})
        self._mlflow.end_run()


class _Wandb:
    """A run of the project `thaw`; `trackio` has the same calls."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], package: str = "wandb") -> None:
        from importlib import import_module

        self._package = import_module(package)
        self._run = self._package.init(project=_PROJECT, name=folder.name, config=dict(settings))

    def epoch(self, figures: Mapping[str, float], step: int) -> None:
        self._package.log(dict(figures), step=step)

    def finish(self, figures: Mapping[str, float]) -> None:
        self._package.log({f"final/{name}": value for name, value in figures.items()})
        self._package.finish()


_MAKERS: dict[str, Any] = {
    "tensorboard": _TensorBoard,
    "mlflow": _MLflow,
    "wandb": _Wandb,
    "trackio": lambda folder, settings: _Wandb(folder, settings, "trackio"),
}
