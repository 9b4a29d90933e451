"""The plan of a run before it is started, by the process that makes it."""

import json
import shutil

import pytest

from tests.studio.clients import Client
from tests.studio.programs import begun, log_of, start
from tests.studio.waiting import until
from thaw.errors import TrainingError
from thaw.run_folder import RunFolder
from thaw.studio.project import Project
from thaw.studio.training import Labelled, Training

LABELLED = Labelled("path,label\n", 3, 7, {})


def planned(training: Training, project: Project, trained: RunFolder) -> None:
    """Studio has a plan, which the process that is started here left."""
    training.plan(LABELLED, {"seed": "1"})
    (project.plan / "end").touch()
    until(lambda: not training.planned.is_running)
    project.planned.mkdir()
    for file in (trained.plan, trained.recipe, trained.manifest):
        shutil.copy(file, project.planned)


def test_a_run_is_started_as_it_was_planned(
    training: Training,
    project: Project,
    trained: RunFolder,
) -> None:
    planned(training, project, trained)
    training.start(LABELLED, {"seed": "1"}, with_plan=True)
    until(lambda: "began" in log_of(training))
    assert "--resume" in log_of(training) and training.run == RunFolder(project.runs / "train-1")
    assert training.run.read_plan() and training.planned.request is None


def test_a_plan_of_other_labels_or_settings_is_not_started(
    training: Training,
    project: Project,
    trained: RunFolder,
) -> None:
    planned(training, project, trained)
    for labelled, settings in ((LABELLED, {}), (Labelled("path,label\nx,y\n", 3, 7, {}), {"seed": "1"})):
        with pytest.raises(TrainingError, match="plan again"):
            training.start(labelled, settings, with_plan=True)
    assert not training.waiting and not training.is_running
    training.planned.cancel()
    with pytest.raises(TrainingError, match="plan again"):
        training.start(LABELLED, {"seed": "1"}, with_plan=True)


def test_a_run_waits_until_the_plan_is_made_and_there_is_no_plan_while_one_trains(
    training: Training,
    project: Project,
) -> None:
    training.plan(LABELLED, {})
    with pytest.raises(TrainingError, match="planned already"):
        training.plan(LABELLED, {})
    start(training)
    assert len(training.waiting) == 1 and not training.is_running
    training.planned.cancel()
    until(lambda: not training.planned.is_running)
    training.advance()
    begun(training)
    with pytest.raises(TrainingError, match="a run trains, waits or is updated"):
        training.plan(LABELLED, {})


@pytest.mark.parametrize("content", ["", "[]", '{"process": 0}', json.dumps({"process": 1, "settings": 5})])
def test_a_damaged_request_is_no_plan(training: Training, project: Project, content: str) -> None:
    project.plan.mkdir()
    project.plan_request.write_text(content, encoding="utf-8")
    assert training.planned.request is None and not training.planned.fits("", {})


def test_the_page_is_told_the_plan_and_its_reasons(client: Client, trained: RunFolder) -> None:
    project = client.workspace.project
    assert client.get("/api/training")["next"] == {"state": "none"}
    project.plan.mkdir()
    shutil.copytree(trained.path, project.planned)
    request = {"process": 1, "settings": {"seed": "1"}, "edits": 0, "recipe": ""}
    project.plan_request.write_text(json.dumps(request), encoding="utf-8")
    told = client.get("/api/training")["next"]
    assert told["state"] == "ready" and told["settings"] == {"seed": "1"} and told["predicted"] > 0
    assert told["plan"][0].keys() == {"setting", "value", "reason"}
    (project.planned / "plan.json").unlink()
    assert client.get("/api/training")["next"]["state"] == "failed"
    assert client.post("/api/training/plan/cancel").json()["next"] == {"state": "none"}
