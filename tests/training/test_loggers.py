import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.reporters import Listening
from thaw.data.dataset import Dataset
from thaw.errors import RecipeError
from thaw.metrics import MetricValues
from thaw.pipeline import finetune
from thaw.progress import NullReporter
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

    package.init = lambda **how: calls.append(("init", how))  # type: ignore[attr-defined]
    package.log = log  # type: ignore[attr-defined]
    package.finish = lambda: calls.append(("finish", None))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, package)
    return calls


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
