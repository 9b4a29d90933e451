import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.studio.clients import Client
from tests.studio.conftest import Opened
from tests.studio.waiting import until
from thaw.errors import TrainingError
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder
from thaw.studio import training as module
from thaw.studio import training_routes
from thaw.studio.project import Project
from thaw.studio.training import Training

PROGRAM = """
import pathlib, signal, sys, time
words = sys.argv[1:]
runs = pathlib.Path(words[words.index("--runs") + 1])
resumes = "--resume" in words
folder = runs / f"train-{len(list(runs.iterdir())) + (not resumes)}"
folder.mkdir(exist_ok=True)
print("began", *words, flush=True)
def end(*_):
    print("terminated", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
while not (folder / "end").exists():
    time.sleep(0.01)
"""
"""A run that ends when it is told to."""


_START = {"process": 1, "when": "", "earlier": [], "settings": {}, "images": 1, "edits": 1}
DAMAGED_STARTS = [
    json.dumps({**_START, **wrong}) for wrong in ({"process": -1}, {"process": "x"}, {"settings": 5}, {"earlier": 5})
]


@pytest.fixture
def project(tmp_path: Path, images: Path) -> Project:
    made = Project.open(tmp_path / "studio", images)
    made.make()
    return made


@pytest.fixture
def training(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Training]:
    """Starts the program instead of `thaw train`."""
    program = tmp_path / "program"
    program.write_text(f"#!{sys.executable}\n{PROGRAM}", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(program))
    made = Training(project, Recipe())
    yield made
    if made.is_running:
        made.stop()
    if made._child:
        made._child.wait(20)


def begun(training: Training) -> None:
    until(lambda: training.run and "began" in training.log())


pytestmark = pytest.mark.skipif(os.name != "posix", reason="the program is a script that the system runs")


def test_a_run_trains_on_the_labels_and_settings_of_its_start(training: Training, project: Project) -> None:
    training.start("path,label\n", 3, 7, {"strategy": "head"})
    begun(training)
    assert project.training_table.read_text(encoding="utf-8") == "path,label\n"
    assert f"train {project.training_table} --runs {project.runs}" in training.log()
    assert "--set=strategy=head" in training.log()
    assert training.started and (training.started.images, training.started.edits) == (3, 7)
    assert training.run and training.run.path.name == "train-1"


def test_one_run_trains_at_a_time(training: Training) -> None:
    training.start("", 0, 0, {})
    for again in (lambda: training.start("", 0, 0, {}), training.resume):
        with pytest.raises(TrainingError, match="trains already"):
            again()


def test_another_studio_finds_the_run_going_on_and_can_stop_it(training: Training, project: Project) -> None:
    training.start("", 0, 0, {})
    begun(training)
    other = Training(project, Recipe())
    assert other.is_running and other.run == training.run
    with pytest.raises(TrainingError, match="trains already"):
        other.start("", 0, 0, {})
    other.stop()
    until(lambda: not training.is_running)
    assert not other.is_running and "terminated" in other.log()


def test_a_killed_run_trains_no_longer(training: Training, project: Project) -> None:
    training.start("", 0, 0, {})
    begun(training)
    assert training.started
    os.kill(training.started.process, signal.SIGKILL)
    until(lambda: not training.is_running)
    assert not Training(project, Recipe()).is_running
    with pytest.raises(TrainingError, match="no run trains"):
        training.stop()


def test_a_stopped_run_is_resumed_and_a_new_one_is_another(training: Training) -> None:
    with pytest.raises(TrainingError, match="no run to resume"):
        training.resume()
    training.start("", 5, 0, {"seed": "3"})
    begun(training)
    training.stop()
    until(lambda: not training.is_running)
    training.resume()
    begun(training)
    assert "--resume" in training.log() and training.run and training.run.path.name == "train-1"
    assert training.started and training.started.settings == {"seed": "3"}
    training.stop()
    until(lambda: not training.is_running)
    training.start("", 5, 0, {})
    until(lambda: training.run and training.run.path.name == "train-2")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"process": 1}', *DAMAGED_STARTS])
def test_a_damaged_note_of_the_start_is_none(training: Training, project: Project, content: str) -> None:
    project.training_state.write_text(content, encoding="utf-8")
    assert training.started is None and training.run is None


@pytest.mark.parametrize("name", ["../..", "train-1/..", "train-9"])
def test_a_note_of_another_folder_names_no_run(training: Training, project: Project, name: str) -> None:
    (project.runs / "train-1").mkdir()
    project.training_state.write_text(json.dumps({**_START, "resumes": name}), encoding="utf-8")
    assert training.run is None


@pytest.mark.parametrize(
    "settings",
    [
        {"--runs": "/tmp"},
        {"seed; rm -rf /": "1"},
        {"seed": ""},
        {"seed": "x" * 501},
        {"SEED": "1"},
        {"seed": "\0"},
        {"seed": 1},
        {"seed=1 --runs": "x"},
        {f"a{number}": "1" for number in range(51)},
        ["seed"],
    ],
)
def test_malformed_settings_start_nothing(untouched: Client, settings: object) -> None:
    assert untouched.post("/api/training", {"settings": settings}).status_code == 422
    assert untouched.get("/api/training") == {"state": "none"}


def test_fewer_than_two_classes_start_nothing(client: Client) -> None:
    client.edit(list(range(12, 36)), None)
    reply = client.post("/api/training")
    assert reply.status_code == 422 and "two classes" in reply.json()["error"]
    client.edit([20, 21], "dent")
    assert (
        "each class needs 3 images, one of them to validate on and one to test on: dent has 2"
        in client.post("/api/training").json()["error"]
    )


def test_files_that_changed_since_they_were_labelled_start_nothing(
    opened: Opened, images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    for label in ("ok", "stain"):
        shutil.copytree(images / label, folder / label)
    client = Client(opened(folder))
    (folder / "ok" / "000.png").unlink()
    shutil.copy(images / "scratch" / "000.png", folder / "stain" / "000.png")
    reply = client.post("/api/training")
    assert reply.status_code == 409 and client.get("/api/training") == {"state": "none"}
    assert "2 labelled images replaced or removed while Studio is open" in reply.json()["error"]
    assert "ok/000.png, stain/000.png" in reply.json()["error"]


def test_events_tell_of_the_run_until_the_server_stops(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_routes, "_PAUSE", 0.01)
    asked: list[bool] = []

    def is_stopping() -> bool:
        asked.append(True)
        return len(asked) > 1

    client.workspace.is_stopping = is_stopping
    reply = client.http.get("/api/training/events")
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.text == 'data: {"state": "none"}\n\n'


def test_without_a_run_nothing_is_stopped_or_resumed(client: Client) -> None:
    for path in ("/api/training/stop", "/api/training/resume"):
        assert client.post(path).status_code == 409


@pytest.mark.parametrize(
    "name", ["train-1", "..", "../..", "train-1/..", "%2e%2e", "train-x", "train-1%00", "inspect-1"]
)
def test_only_reports_of_finished_runs_are_sent(untouched: Client, name: str) -> None:
    assert untouched.http.get(f"/runs/{name}/report").status_code == 404


def test_a_report_gets_nothing_of_the_server(client: Client, with_run: RunFolder) -> None:
    reply = client.http.get("/runs/train-1/report")
    assert reply.status_code == 200 and "sandbox allow-scripts" in reply.headers["content-security-policy"]
    assert "allow-same-origin" not in reply.headers["content-security-policy"]


def test_finished_runs_are_listed_with_their_metrics(client: Client, with_run: RunFolder) -> None:
    (run,) = client.get("/api/runs")
    accuracy = run["splits"]["test"]["metrics"][0]
    assert run["run"] == "train-1" and accuracy["title"] == "accuracy"
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]


def test_a_damaged_run_does_not_hide_the_others(client: Client, with_run: RunFolder) -> None:
    shutil.copytree(with_run.path, with_run.path.with_name("train-2"))
    (with_run.path.with_name("train-2") / "evaluation.json").write_text("{", encoding="utf-8")
    damaged, whole = client.get("/api/runs")
    assert "evaluation.json" in damaged["error"] and not damaged["splits"]
    assert whole["run"] == "train-1" and whole["splits"]["test"]["metrics"]
