import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from tests.reporters import Listening
from thaw.data.dataset import Dataset
from thaw.errors import RecipeError
from thaw.metrics import MetricValues
from thaw.pipeline import finetune
from thaw.progress import NullReporter, OnProgress
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder
from thaw.training.history import EpochRecord
from thaw.training.loggers import check_loggers, open_loggers


def records(count: int) -> list[EpochRecord]:
    metrics = MetricValues({"loss": 0.5, "accuracy": 0.8})
    return [EpochRecord("head", number + 1, "head", 1e-3, 0.6, metrics, 1.0) for number in range(count)]


def fake_package(name: str, monkeypatch: pytest.MonkeyPatch, fail_at: int | None = None) -> list[tuple[str, Any]]:
    """A fake package with the API of W&B that records its calls."""
    calls: list[tuple[str, Any]] = []
    package = ModuleType(name)

    def log(values: dict[str, float], step: int | None = None) -> None:
        if step == fail_at is not None:
            raise ConnectionError("no network")
        calls.append(("log", (step, values)))

    def init(**how: Any) -> SimpleNamespace:
        assert name == "wandb" or "reinit" not in how
        calls.append(("init", how))
        return SimpleNamespace(log=log, finish=lambda: calls.append(("finish", None)))

    package.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, package)
    return calls


class FakeClient:
    """MLflow's client, whose runs are dictionaries."""

    runs: ClassVar[list[dict[str, Any]]] = []
    experiments: ClassVar[list[str]] = []

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        return SimpleNamespace(experiment_id=self.experiments.index(name)) if name in self.experiments else None

    def create_experiment(self, name: str) -> int:
        self.experiments.append(name)
        return len(self.experiments) - 1

    def create_run(self, experiment: int, tags: dict[str, str], run_name: str) -> SimpleNamespace:
        run = {"experiment": self.experiments[experiment], "name": run_name, "tags": tags, "logged": []}
        self.runs.append(run)
        return SimpleNamespace(info=SimpleNamespace(run_id=len(self.runs) - 1))

    def log_batch(self, run: int, metrics: Sequence[Any] = (), params: Sequence[Any] = ()) -> None:
        self.runs[run]["logged"] += [(name, value, step) for name, value, _, step in metrics]
        self.runs[run].setdefault("params", dict(params))

    def set_terminated(self, run: int, status: str = "FINISHED") -> None:
        self.runs[run]["status"] = status


def fake_mlflow(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A fake package that has no more of MLflow than a client; gives the runs to come."""
    client = type("Client", (FakeClient,), {"runs": [], "experiments": []})
    entities = {"Param": lambda *values: values, "Metric": lambda *values: values}
    modules = {
        "mlflow": {"MlflowClient": client},
        "mlflow.entities": entities,
        "mlflow.tracking": {},
        "mlflow.tracking.context": {},
        "mlflow.tracking.context.registry": {"resolve_tags": lambda: {"mlflow.user": "ann"}},
    }
    for name, values in modules.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    return client.runs


def test_a_run_writes_event_files_for_tensorboard(trained: RunFolder) -> None:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    (file,) = (trained.path / "tensorboard").iterdir()
    events = [event for event in EventFileLoader(str(file)).Load() if event.summary.value]
    epochs = [event for event in events if event.step]
    assert [event.step for event in epochs] == [1, 2, 3, 4]
    assert {value.tag for value in epochs[0].summary.value} >= {"train/loss", "val/accuracy", "lr"}
    assert events[-1].summary.value[0].tag.startswith("final/")


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_loggers_receive_the_settings_each_epoch_once_and_the_end(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = fake_package(name, monkeypatch)
    loggers = open_loggers(Recipe.from_values({"loggers": [name]}), tmp_path / "train-7", NullReporter())
    loggers.epochs(records(1))
    loggers.epochs(records(3))
    loggers.finish({"val/accuracy": 0.8})
    assert calls[0][1]["name"] == "train-7" and calls[0][1]["config"]["seed"] == 0
    assert [step for kind, (step, _) in calls[1:-1] if kind == "log"] == [1, 2, 3, None]
    assert calls[-1][0] == "finish"


def test_a_run_of_wandb_is_next_to_that_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By default W&B would give the open run of the user, or end it."""
    calls = fake_package("wandb", monkeypatch)
    open_loggers(Recipe(loggers=("wandb",)), tmp_path, NullReporter())
    assert calls[0][1]["reinit"] == "create_new"


def test_mlflow_receives_all_in_runs_that_only_their_logger_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So the run and the experiment that are open in the process of the user stay so."""
    runs = fake_mlflow(monkeypatch)
    reporter = Listening()
    first, second = (open_loggers(Recipe(loggers=("mlflow",)), tmp_path / name, reporter) for name in ("a", "b"))
    first.epochs(records(2))
    first.finish({"val/accuracy": 0.8})
    second.close()
    assert not reporter.said
    assert [(run["name"], run["experiment"], run["status"]) for run in runs] == [
        ("a", "thaw", "FINISHED"),
        ("b", "thaw", "KILLED"),
    ]
    assert {("val/accuracy", 0.8, 1), ("val/accuracy", 0.8, 2), ("final/val/accuracy", 0.8, 0)} < {*runs[0]["logged"]}
    assert runs[0]["params"]["seed"] == "0" and runs[0]["tags"] == {"mlflow.user": "ann"}


def test_loggers_are_closed_once_whether_training_ends_or_is_interrupted(
    images: Path, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_package("wandb", monkeypatch)
    monkeypatch.setattr("thaw.training.loggers.find_spec", lambda name: object())
    recipe = quick.model_copy(update={"loggers": ("wandb",), "phases": quick.phases[:1]})

    class Stopping(NullReporter):
        def bar(self, title: str) -> OnProgress:
            if title.startswith("phase "):
                raise KeyboardInterrupt
            return super().bar(title)

    with pytest.raises(KeyboardInterrupt):
        finetune(Dataset.open(images), recipe, tmp_path, reporter=Stopping())
    assert [kind for kind, _ in calls] == ["init", "log", "finish"]
    finetune(Dataset.open(images), None, tmp_path, resume=True, reporter=NullReporter())
    assert [kind for kind, _ in calls[3:]] == ["init", "log", "log", "log", "finish"]


@pytest.mark.parametrize(
    ("name", "variable", "value"),
    [
        ("mlflow", "MLFLOW_DISABLE_TELEMETRY", "true"),
        ("wandb", "WANDB_ERROR_REPORTING", "false"),
        ("trackio", "GRADIO_ANALYTICS_ENABLED", "False"),
    ],
)
def test_a_logger_does_not_report_its_use_unless_the_user_allows_it(
    name: str, variable: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_package(name, monkeypatch)
    monkeypatch.setenv(variable, "of the user")
    open_loggers(Recipe.from_values({"loggers": [name]}), tmp_path, NullReporter())
    assert os.environ[variable] == "of the user"
    monkeypatch.delenv(variable)
    open_loggers(Recipe.from_values({"loggers": [name]}), tmp_path, NullReporter())
    assert os.environ[variable] == value


def test_a_resumed_run_logs_new_epochs_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = fake_package("wandb", monkeypatch)
    loggers = open_loggers(Recipe.from_values({"loggers": "wandb"}), tmp_path, NullReporter())
    loggers.skip(2)
    loggers.epochs(records(3))
    assert [call[0] for kind, call in calls if kind == "log"] == [3]


def test_a_logger_that_fails_is_dropped_and_the_others_continue(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken, working, reporter = (
        fake_package("wandb", monkeypatch, fail_at=2),
        fake_package("trackio", monkeypatch),
        Listening(),
    )
    loggers = open_loggers(Recipe.from_values({"loggers": "wandb,trackio"}), tmp_path, reporter)
    loggers.epochs(records(3))
    assert reporter.said == ["wandb failed (ConnectionError: no network); training continues without it"]
    assert len(broken) == 2 and len(working) == 4


def test_a_logger_that_is_not_installed_is_refused_before_training(
    images: Path, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thaw.training.loggers.find_spec", lambda name: None if name == "trackio" else object())
    with pytest.raises(RecipeError, match="trackio is not installed; pip install trackio"):
        finetune(Dataset.open(images), quick.model_copy(update={"loggers": ("trackio",)}), tmp_path / "runs")
    assert not list(tmp_path.rglob("*.csv"))
    check_loggers(("wandb",))


def test_without_loggers_there_are_no_event_files(images: Path, quick: Recipe, tmp_path: Path) -> None:
    asked = quick.with_settings({"loggers": []}).model_copy(update={"phases": quick.phases[:1]})
    finetune(Dataset.open(images), asked, tmp_path / "runs", reporter=NullReporter())
    assert not (tmp_path / "runs" / "train-1" / "tensorboard").exists()
