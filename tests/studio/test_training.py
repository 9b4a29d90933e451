import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.studio.clients import Client
from tests.studio.conftest import Opened
from tests.studio.programs import PROGRAM, begun, end, log_of, start
from tests.studio.waiting import until
from thaw.data import digests, reader
from thaw.data.reader import digest_of
from thaw.errors import DataError, TrainingError, WriteError
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder
from thaw.studio import training as module
from thaw.studio import training_routes
from thaw.studio.detached import DetachedProcess
from thaw.studio.journal import Journal, Line
from thaw.studio.project import Project, QueuedFiles
from thaw.studio.run_progress import progress
from thaw.studio.training import Training
from thaw.studio.training_queue import Begun


@contextmanager
def restarted(training: Training, project: Project) -> Iterator[Training]:
    """Another Studio, after this one was killed; what it has open is closed, as the system does then."""
    training._queue._journal.close()
    with closing(Journal(project.actions)) as actions:
        yield Training(project, Recipe(), actions)


REAL = sys.executable

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the program is a script that the system runs")


def test_a_run_trains_on_the_labels_and_settings_of_its_start(training: Training, project: Project) -> None:
    start(training, {"strategy": "head"})
    begun(training)
    assert project.training_table.read_text(encoding="utf-8") == "path,label\n"
    assert f"train {project.training_table} --runs {project.runs}" in log_of(training)
    assert "--set=strategy=head" in log_of(training)
    assert training.latest and (training.latest.job.request.images, training.latest.job.request.edits) == (3, 7)
    assert training.run and training.run.path.name == "train-1"


def test_runs_train_one_after_the_other_each_on_the_labels_of_its_start(training: Training, project: Project) -> None:
    for number in range(1, 4):
        start(training, {"seed": str(number)}, f"path,label\n{number}\n")
    begun(training)
    assert [job.number for job in training.waiting] == [2, 3]
    training.advance()
    assert len(training.waiting) == 2
    for number in range(2, 4):
        end(training)
        training.advance()
        begun(training)
        assert training.run and training.run.path.name == f"train-{number}" and f"seed={number}" in log_of(training)
        assert project.training_table.read_text(encoding="utf-8") == f"path,label\n{number}\n"
    assert not training.waiting


def test_a_run_that_is_stopped_makes_room_for_the_next(training: Training) -> None:
    for _ in range(2):
        start(training)
    begun(training)
    training.stop()
    until(lambda: not training.is_running)
    training.advance()
    begun(training)
    assert training.run and training.run.path.name == "train-2"


def test_a_run_that_waits_is_cancelled_once(training: Training, project: Project) -> None:
    for _ in range(3):
        start(training)
    training.cancel(2)
    assert [job.number for job in training.waiting] == [3] and not project.queued(2).folder.exists()
    for number in (1, 2, 9):
        with pytest.raises(TrainingError, match="does not wait"):
            training.cancel(number)
    with restarted(training, project) as other:
        assert [job.number for job in other.waiting] == [3]


def test_the_queue_goes_on_in_another_studio(training: Training, project: Project) -> None:
    for number in range(3):
        start(training, {"seed": str(number)})
    begun(training)
    with restarted(training, project) as other:
        assert other.is_running and other.run == training.run and [job.number for job in other.waiting] == [2, 3]
        other.advance()
        end(other)
        other.advance()
        begun(other)
        assert "seed=1" in log_of(other) and [job.number for job in other.waiting] == [3]
        other.stop()
        until(lambda: not other.is_running)
        assert "terminated" in log_of(other)


@pytest.mark.parametrize("moment", ["before the process", "after the process"])
def test_a_studio_that_is_killed_while_it_begins_a_run_begins_it_once(
    training: Training, project: Project, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Killed(BaseException):
        """Nothing runs after it."""

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if moment == "before the process":
            patch.setattr(DetachedProcess, "start", killed)
        else:
            patch.setattr(
                module.json, "dumps", lambda value, **words: killed() if "process" in value else dumped(value)
            )
            dumped = json.JSONEncoder().encode
        with pytest.raises(Killed):
            start(training)
    with restarted(training, project) as other:
        other.advance()
        begun(other)
        end(other)
        other.advance()
        assert not other.is_running and [run.path.name for run in other.finished_runs()] == ["train-1"]


@pytest.mark.parametrize("written", [0, 1])
def test_on_a_full_disk_nothing_is_started_before_it_is_written_down(
    training: Training, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    append, lines = Journal.append, [written]

    def full(journal: Journal, content: Sequence[Line]) -> None:
        if not lines[0]:
            raise WriteError(journal.file, "the disk is full")
        lines[0] -= 1
        append(journal, content)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full)
        if written:
            start(training)
            assert "the disk is full" in training.problem and len(training.waiting) == 1
        else:
            with pytest.raises(WriteError, match="the disk is full"):
                start(training)
        assert not training.is_running and training.run is None and training.latest is None
    training.advance()
    assert training.is_running == bool(written) and not training.problem


def test_images_that_were_replaced_while_a_run_waited_are_not_trained_on(
    project: Project, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_replaced", lambda table: "1 labelled image replaced")
    start(training)
    assert not training.is_running and not training.waiting and training.refusal == "1 labelled image replaced"
    with restarted(training, project) as other:
        other.advance()
        assert not other.is_running and other.refusal == "1 labelled image replaced"


def test_a_run_can_be_cancelled_while_its_images_are_checked(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, checked = threading.Event(), threading.Event()

    def replaced(files: QueuedFiles) -> str:
        asked.set()
        assert checked.wait(30)
        return ""

    monkeypatch.setattr(training, "_replaced", replaced)
    starting = threading.Thread(target=start, args=(training,))
    starting.start()
    assert asked.wait(30)
    with pytest.raises(TrainingError, match="no run trains"):
        training.stop()
    training.cancel(1)
    checked.set()
    starting.join()
    assert not training.is_running and training.latest is None and not training.problem


def test_only_images_that_may_have_changed_are_read_before_a_run(
    opened: Opened, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a file system that does not tell what has changed."""
    monkeypatch.setattr(digests, "_MOUNTS", tmp_path / "nothing")
    monkeypatch.setattr(digests, "_UNCHANGED_NS", -(10**12))
    monkeypatch.setattr(Training, "_launch", lambda *_: None)
    folder = shutil.copytree(images, tmp_path / "images")
    client, read = Client(opened(folder)), []
    monkeypatch.setattr(reader, "digest_of", lambda file: read.append(file.name) or digest_of(file))
    assert client.post("/api/training").status_code == 200 and read == []
    (folder / "stain" / "000.png").touch()
    assert client.post("/api/training").status_code == 200 and read == ["000.png"]
    shutil.copy(folder / "scratch" / "000.png", folder / "stain" / "000.png")
    assert client.post("/api/training").status_code == 409 and read == ["000.png"] * 2


@pytest.mark.parametrize("change", ["replaced", "removed", "none"])
def test_images_that_were_replaced_while_studio_was_closed_are_not_trained_on(
    opened: Opened, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    begun: list[Begun] = []
    monkeypatch.setattr(Training, "_launch", lambda _, job: begun.append(job))
    folder = shutil.copytree(images, tmp_path / "images")
    workspace = opened(folder)
    workspace.training.waits_for = lambda: True
    assert Client(workspace).post("/api/training").json()["queue"]
    workspace.close()
    if change == "replaced":
        shutil.copy(folder / "scratch" / "000.png", folder / "stain" / "000.png")
    elif change == "removed":
        (folder / "stain" / "000.png").unlink()
    again = opened(folder).training
    again.advance()
    assert not again.waiting and len(begun) == (change == "none")
    if change != "none":
        assert "1 labelled image replaced or removed while the run waited" in again.refusal
        assert "stain/000.png" in again.refusal


def test_a_run_that_does_not_start_is_still_told_when_the_next_one_trains(training: Training, project: Project) -> None:
    program = Path(sys.executable)
    program.write_text(f"#!{REAL}\nprint('thaw: setting seed')", encoding="utf-8")
    start(training, {"seed": "x"})
    until(lambda: not training.is_running)
    program.write_text(f"#!{REAL}\n{PROGRAM}", encoding="utf-8")
    assert [one.job.number for one in training.failed] == [1]
    start(training)
    begun(training)
    (failed,) = training.failed
    assert training.log(failed, 1) == ["thaw: setting seed"] and progress(training)["failed"][0]["settings"] == {
        "seed": "x"
    }


def test_another_studio_finds_the_run_going_on_and_can_stop_it(training: Training, project: Project) -> None:
    start(training)
    begun(training)
    with restarted(training, project) as other:
        other.stop()
        until(lambda: not training.is_running)
        assert not other.is_running and "terminated" in log_of(other)


def test_a_killed_run_trains_no_longer(training: Training) -> None:
    start(training)
    begun(training)
    os.kill(training._process._child.pid, signal.SIGKILL)  # type: ignore[union-attr]
    until(lambda: not training.is_running)
    with pytest.raises(TrainingError, match="no run trains"):
        training.stop()
    training.advance()
    assert not training.is_running


def test_a_stopped_run_is_resumed_on_its_own_labels_also_after_a_later_one(
    training: Training, project: Project
) -> None:
    with pytest.raises(TrainingError, match="no run to resume"):
        training.resume()
    start(training, {"seed": "3"}, "its own")
    begun(training)
    assert training.resumable is None
    start(training, {}, "later")
    training.stop()
    until(lambda: not training.is_running)
    training.advance()
    begun(training)
    end(training)
    assert training.resumable == RunFolder(project.runs / "train-1")
    training.resume()
    begun(training)
    assert "--resume" in log_of(training) and training.run == RunFolder(project.runs / "train-1")
    assert project.training_table.read_text(encoding="utf-8") == "its own"
    assert training.latest and training.latest.job.request.settings == {"seed": "3"}


def test_an_update_is_not_the_run_of_a_job_and_is_waited_for(training: Training, project: Project) -> None:
    training.waits_for = lambda: True
    start(training)
    assert not training.is_running and len(training.waiting) == 1
    training.waits_for = lambda: False
    training.advance()
    begun(training)
    training.stop()
    until(lambda: not training.is_running)
    updated = RunFolder.create(project.runs)
    updated.update.touch()
    assert training.run == training.resumable == RunFolder(project.runs / "train-1")


def test_a_run_that_cannot_be_resumed_any_more_is_refused(training: Training, project: Project) -> None:
    for _ in range(2):
        start(training)
    begun(training)
    training.stop()
    until(lambda: not training.is_running)
    training.resume()
    begun(training)
    training.stop()
    until(lambda: not training.is_running)
    training.advance()
    assert "train-1 cannot be resumed any more" in training.refusal


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"process": 1}', '{"job": 1, "process": -1}'])
def test_a_damaged_note_of_the_process_is_none(training: Training, project: Project, content: str) -> None:
    start(training)
    begun(training)
    end(training)
    project.training_state.write_text(content, encoding="utf-8")
    training.advance()
    assert not training.is_running and training.run and training.run.is_finished


@pytest.mark.parametrize("wrong", [{"number": 0}, {"number": "x"}, {"settings": 5}, {"resumes": 5}, {"images": None}])
def test_a_damaged_line_of_the_queue_is_said(project: Project, wrong: dict[str, object]) -> None:
    line = {"action": "queue training", "number": 1, "settings": {}, "images": 1, "edits": 1, "resumes": ""}
    content = json.dumps({**line, "is_planned": False, "when": "", **wrong})
    project.actions.write_text(content + "\n", encoding="utf-8")
    with closing(Journal(project.actions)) as actions, pytest.raises(DataError, match="a line about a run is damaged"):
        Training(project, Recipe(), actions)


@pytest.mark.parametrize("name", ["../..", "train-1/..", "train-9"])
def test_a_line_about_another_folder_names_no_run(project: Project, name: str) -> None:
    (project.runs / "train-1").mkdir()
    facts = {"settings": {}, "images": 1, "edits": 1, "resumes": name, "is_planned": False}
    lines = ({"action": "queue training", **facts}, {"action": "train", "earlier": []})
    content = "".join(json.dumps({**line, "number": 1, "when": ""}) + "\n" for line in lines)
    project.actions.write_text(content, encoding="utf-8")
    with closing(Journal(project.actions)) as actions:
        assert Training(project, Recipe(), actions).run is None


def test_a_job_that_an_earlier_release_began_has_its_run(project: Project) -> None:
    for number in range(1, 6):
        (project.runs / f"train-{number}").mkdir()
    job = {"settings": {}, "images": 1, "edits": 1, "resumes": "", "is_planned": False, "when": ""}
    lines: list[dict[str, object]] = []
    for number, earlier in enumerate((["train-2", "train-1"], ["train-4", "train-2", "train-1", "train-3"]), 1):
        lines.append({"action": "queue training", "number": number, **job})
        lines.append({"action": "train", "number": number, "earlier": earlier, "when": ""})
    project.actions.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with closing(Journal(project.actions)) as actions:
        training = Training(project, Recipe(), actions)
        assert [training._runs.of(begun) for begun in training._queue.begun] == [
            RunFolder(project.runs / "train-3"),
            RunFolder(project.runs / "train-5"),
        ]
        assert training.run == RunFolder(project.runs / "train-5")


def test_a_job_that_is_begun_notes_only_the_newest_run(training: Training, project: Project) -> None:
    for number in range(1, 4):
        (project.runs / f"train-{number}").mkdir()
    start(training)
    begun(training)
    last = json.loads(project.actions.read_text(encoding="utf-8").splitlines()[-1])
    assert last["earlier"] == ["train-3"] and training.run == RunFolder(project.runs / "train-4")


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
    assert untouched.get("/api/training")["state"] == "none"


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
    assert reply.status_code == 409 and client.get("/api/training")["state"] == "none"
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
    assert json.loads(reply.text.removeprefix("data: ").strip())["state"] == "none"


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
