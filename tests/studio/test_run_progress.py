import json

import pytest

from tests.studio.clients import Client
from thaw.run_folder import RunFolder
from thaw.studio import training_routes
from thaw.studio.run_progress import progress
from thaw.studio.training import Training
from thaw.studio.training_queue import Begun, Job, Request
from thaw.studio.workspace import Workspace


@pytest.fixture
def training(workspace: Workspace, with_run: RunFolder) -> Training:
    job = Job(1, "2026-01-01T00:00:00+00:00", Request({}, 36, 2))
    workspace.training._queue.begun.append(Begun(job, job.when, 0))
    workspace.project.training_state.write_text('{"job": 1, "process": 1}', encoding="utf-8")
    return workspace.training


def test_a_finished_run_has_its_plan_and_epochs(training: Training) -> None:
    found = progress(training)
    assert (found["state"], found["run"], found["images"]) == ("finished", "train-1", 36)
    assert found["plan"][0].keys() == {"setting", "value", "reason"}
    assert found["epochs"][0]["phase"] == "head" and found["left"] is None
    assert all(0 <= one["value"] <= 1 and one["val_loss"] > 0 for one in found["epochs"])


@pytest.mark.parametrize("is_running", [True, False])
def test_earlier_jobs_are_not_searched_for_each_run(
    training: Training, with_run: RunFolder, is_running: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_run.evaluation.unlink()
    monkeypatch.setattr(Training, "is_running", is_running)
    listings, newest_first = [], RunFolder.newest_first
    monkeypatch.setattr(RunFolder, "newest_first", lambda parent: listings.append(parent) or newest_first(parent))
    assert progress(training)["resumable"] == ("" if is_running else "train-1")
    few = len(listings)
    for number in range(2, 40):
        RunFolder.create(training._project.runs).evaluation.touch()
        job = Job(number, "2026-01-01T00:00:00+00:00", Request({}, 36, 2))
        training._queue.begun.append(Begun(job, job.when, number - 1))
    assert progress(training)["resumable"] == ("" if is_running else "train-1")
    assert len(listings) - few < few + 10


def test_a_run_without_its_evaluation_was_stopped(training: Training, with_run: RunFolder) -> None:
    with_run.evaluation.unlink()
    assert progress(training)["state"] == "stopped"


def test_a_start_without_a_folder_failed_and_the_log_says_why(training: Training, with_run: RunFolder) -> None:
    with_run.path.rename(with_run.path.with_name("elsewhere"))
    training._project.queued(1).make()
    training._project.queued(1).log.write_text("thaw: setting seed: 'x' is no number\n", encoding="utf-8")
    found = progress(training)
    assert found["state"] == "failed" and found["log"] == ["thaw: setting seed: 'x' is no number"]


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_the_time_left_is_that_of_the_epochs_to_come(
    training: Training, with_run: RunFolder, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Training, "is_running", True)
    with_run.evaluation.unlink()
    lines = with_run.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
    with_run.metrics.write_text("".join(lines[: 1 + epochs]), encoding="utf-8")
    found = progress(training)
    assert found["state"] == "training" and 0 <= found["left"] <= found["predicted"] + 60


def test_what_is_being_written_is_not_read_yet(training: Training, with_run: RunFolder) -> None:
    with_run.plan.write_text('{"requested"', encoding="utf-8")
    assert progress(training)["plan"] == []


def test_a_run_that_diverged_has_epochs_without_values(
    training: Training, with_run: RunFolder, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, first, *_ = with_run.metrics.read_text(encoding="utf-8").splitlines()
    cells = dict(zip(header.split(","), first.split(","), strict=True)) | {"train_loss": "nan", "val_loss": "inf"}
    with_run.metrics.write_text(f"{header}\n{first}\n{','.join(cells.values())}\n", encoding="utf-8")
    whole, diverged = progress(training)["epochs"]
    assert whole["train_loss"] > 0 and (diverged["train_loss"], diverged["val_loss"]) == (None, None)
    asked = iter([False, True])
    monkeypatch.setattr(client.workspace, "is_stopping", lambda: next(asked))
    monkeypatch.setattr(training_routes, "_PAUSE", 0.0)
    sent = client.http.get("/api/training/events").text.removeprefix("data: ")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(sent, parse_constant=refuse)["epochs"] == [whole, diverged]


def test_a_monitored_loss_is_lower_the_better_and_no_percentage(training: Training, with_run: RunFolder) -> None:
    by_accuracy = {"title": "accuracy", "kind": "fraction", "higher_is_better": True}
    assert progress(training)["monitor"] == by_accuracy
    recipe = with_run.read_recipe().with_settings({"monitor": "loss"})
    with_run.recipe.write_text(recipe.to_yaml(), encoding="utf-8")
    assert progress(training)["monitor"] == {"title": "loss", "kind": "loss", "higher_is_better": False}
    assert all(one["value"] == one["val_loss"] for one in progress(training)["epochs"])
