"""A trial is begun, trained and finished by separate calls, so that a search can stop before the last."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.in_use import on_windows
from tests.reporters import Listening
from thaw.data.dataset import Dataset
from thaw.errors import WriteError
from thaw.pipeline import load, predict
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run import finish
from thaw.training import checkpoint
from thaw.training.history import best_index
from thaw.trial import TrainingResult, Trial, TrialContext, begin, fit_settings, resume, train


def best_accuracy(trial: Trial, result: TrainingResult) -> float:
    best = best_index(result.records, trial.recipe.monitor)
    assert best is not None
    return result.records[best].val["accuracy"]


def test_trials_are_compared_and_only_the_best_is_finished(images: Path, quick: Recipe, tmp_path: Path) -> None:
    dataset, quiet = Dataset.open(images), NullReporter()
    head = quick.phases[0]
    trained: list[tuple[Trial, TrainingResult]] = []
    for lr in (1e-5, 1e-2):
        recipe = quick.model_copy(update={"phases": (head.model_copy(update={"lr": lr}),)})
        trial = begin(dataset, recipe, TrialContext(tmp_path, quiet))
        trained.append((trial, train(trial, quiet)))
    for trial, result in trained:
        folder = trial.folder
        assert folder.metrics.is_file() and len(result.records) == head.epochs
        assert not any(file.exists() for file in (folder.model, folder.report, folder.evaluation, folder.predictions))
    other, best = sorted(trained, key=lambda pair: best_accuracy(*pair))
    finish(*best, time.perf_counter(), quiet)
    assert best[0].folder.is_finished and best[0].folder.report.is_file() and not other[0].folder.model.exists()
    (prediction,) = predict(best[0].folder.path, [next((images / "ok").iterdir())])
    assert prediction.status == "ok" and load(best[0].folder.path).classes == dataset.classes


def test_a_table_of_epochs_that_stays_open_in_excel_ends_no_training_and_is_written_when_the_run_is_resumed(
    images: Path, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, reporter, opened = quick.model_copy(update={"phases": quick.phases[:1]}), Listening(), {"metrics.csv"}
    trial = begin(Dataset.open(images), recipe, TrialContext(tmp_path, reporter))
    with monkeypatch.context() as windows:
        on_windows(windows, lambda path: path.name in opened and path.is_file())
        with pytest.raises(WriteError, match=r"metrics\.csv: is open in another program"):
            train(trial, reporter)
        saved, epochs = checkpoint.read(trial.folder.checkpoints, "last"), recipe.phases[0].epochs
        assert saved is not None and len(saved.progress.records) == epochs > len(trial.folder.read_epochs())
        assert sum("is open in another program" in line for line in reporter.said) == 1
        opened.clear()
        resumed = resume(Dataset.open(images), recipe, TrialContext(tmp_path, reporter), trial.folder)
        train(resumed, reporter)
    assert len(trial.folder.read_epochs()) == epochs


def test_a_target_rests_on_the_groups_of_validation_and_on_its_rarest_class(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    target = {"accuracy": 0.9, "balanced_accuracy": 0.9}
    trial = begin(
        Dataset.open(images), quick.model_copy(update={"target": target}), TrialContext(tmp_path, NullReporter())
    )
    settings, targets = fit_settings(trial, trial.folder.checkpoints, ""), trial.inputs.val.targets
    assert settings.val_groups is None
    assert settings.target_trials == {"accuracy": len(targets), "balanced_accuracy": np.bincount(targets).min()}
    manifest = trial.prepared.manifest
    groups = [f"group {row % 3}" for row in range(len(manifest))]
    grouped = replace(trial, prepared=replace(trial.prepared, manifest=manifest.with_columns({"group": groups})))
    rests_on = fit_settings(grouped, trial.folder.checkpoints, "")
    assert rests_on.val_groups is not None
    assert rests_on.target_trials["accuracy"] == len(np.unique(rests_on.val_groups)) < len(targets)
