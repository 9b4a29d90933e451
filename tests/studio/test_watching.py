"""Images that arrive in a watched folder; time is told to the watch, so that no test waits."""

import os
import shutil
from pathlib import Path

import pytest

from tests.studio.clients import Client
from tests.studio.conftest import Opened
from tests.studio.waiting import until
from thaw.errors import DataError, UnreadableImage
from thaw.prediction.predict import Prediction
from thaw.run_folder import RunFolder
from thaw.studio import watching as module
from thaw.studio.run_classifier import TriedImage
from thaw.studio.watching import UNCHANGED_FOR, UNREADABLE_AFTER, Watch


def classify(data: bytes) -> TriedImage:
    """The label is the content; whatever begins with a question mark cannot be read."""
    if data.startswith(b"?"):
        raise UnreadableImage("not an image")
    return TriedImage(("a",), Prediction(Path(), "ok", labels=(data.decode(),), probabilities=(1.0,)), b"", "a", b"")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "camera"
    made.mkdir()
    (made / "before.png").write_text("before", encoding="utf-8")
    return made


@pytest.fixture
def watch(folder: Path) -> Watch:
    return Watch(folder, classify)


def write(folder: Path, content: str, name: str = "one.png") -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content, encoding="utf-8")


def labels(watch: Watch) -> list[str]:
    return [one.tried.prediction.labels[0] if one.tried else one.reason for one in watch.arrivals]


def test_what_arrives_is_classified_once_and_what_was_there_is_not(watch: Watch, folder: Path) -> None:
    assert watch.before == 1 and not watch.step(0)
    write(folder, "new")
    write(folder, "left out", "notes.txt")
    assert not watch.step(1) and watch.waiting == 1
    assert watch.step(1 + UNCHANGED_FOR) and labels(watch) == ["new"]
    assert not watch.step(9) and watch.waiting == 0


def test_the_newest_is_first(watch: Watch, folder: Path) -> None:
    for second, name in enumerate(("1.png", "2.png", "shift/3.png")):
        write(folder, name, name)
        watch.step(second / 10)
    while watch.step(5):
        pass
    assert [one.name for one in watch.arrivals] == ["shift/3.png", "2.png", "1.png"]
    assert [one.number for one in watch.arrivals] == [1, 2, 3]


def test_a_half_written_file_is_waited_for(watch: Watch, folder: Path) -> None:
    for second, content in enumerate(("?", "??", "???")):
        write(folder, content)
        assert not watch.step(second)
    assert not watch.step(3 + UNCHANGED_FOR) and watch.waiting == 1
    write(folder, "whole")
    watch.step(5)
    assert watch.step(5 + UNCHANGED_FOR) and labels(watch) == ["whole"]


def test_one_that_is_written_on_while_it_is_read_is_read_again(
    watch: Watch, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "part")
    watch.step(0)

    def read(file: Path) -> bytes:
        data = file.read_bytes()
        write(folder, "part and rest")
        return data

    monkeypatch.setattr(module, "read_image_file", read)
    assert not watch.step(2)
    monkeypatch.undo()
    watch.step(3)
    assert watch.step(5) and labels(watch) == ["part and rest"]


def test_an_unreadable_file_is_a_row_with_its_reason(watch: Watch, folder: Path) -> None:
    write(folder, "?")
    (folder / "gone.png").symlink_to(folder / "nowhere")
    (folder / "folder.png").mkdir()
    watch.step(0)
    assert not watch.step(UNCHANGED_FOR) and watch.step(UNREADABLE_AFTER)
    assert labels(watch) == ["not an image"] and not watch.step(99)


def test_a_file_that_is_written_again_is_new(watch: Watch, folder: Path) -> None:
    for second, content in enumerate(("first", "second")):
        write(folder, content, "latest.jpg")
        os.utime(folder / "latest.jpg", (second, second))
        watch.step(10 * second)
        assert watch.step(10 * second + UNCHANGED_FOR)
    assert labels(watch) == ["second", "first"]


def test_nothing_in_the_folder_is_changed(watch: Watch, folder: Path) -> None:
    write(folder, "new")
    before = {file: file.stat() for file in folder.iterdir()}
    watch.step(0)
    assert watch.step(2)
    after = {file: file.stat() for file in folder.iterdir()}
    assert after.keys() == before.keys() and all(after[file].st_mtime_ns == before[file].st_mtime_ns for file in before)


def test_one_look_serves_every_file_that_it_finds(watch: Watch, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        write(folder, str(number), f"{number}.png")
    watch.step(0)
    looks, versions = [], watch._versions
    monkeypatch.setattr(watch, "_versions", lambda: looks.append(1) or versions())
    assert all(watch.step(2) for _ in range(5)) and len(looks) == 1
    assert not watch.step(2) and watch.classified == 5


def test_a_newer_file_does_not_wait_for_all_that_an_earlier_look_found(watch: Watch, folder: Path) -> None:
    for number in range(3):
        write(folder, str(number), f"{number}.png")
    watch.step(0)
    assert watch.step(2)
    write(folder, "newer", "newer.png")
    assert watch.step(2.5) and watch.step(3.5)
    assert watch.step(3.5 + UNCHANGED_FOR) and labels(watch)[0] == "newer"


def test_one_that_is_removed_after_the_look_is_not_called_unreadable(watch: Watch, folder: Path) -> None:
    for number in range(2):
        write(folder, str(number), f"{number}.png")
    watch.step(0)
    assert watch.step(UNREADABLE_AFTER)
    (folder / "0.png").unlink()
    assert not watch.step(UNREADABLE_AFTER) and watch.unreadable == 0


def test_few_results_are_kept(watch: Watch, folder: Path) -> None:
    for number in range(module.KEPT + 3):
        write(folder, str(number), f"{number}.png")
    watch.step(0)
    while watch.step(2):
        pass
    assert len(watch.arrivals) == module.KEPT and watch.classified == module.KEPT + 3


def test_images_of_a_camera_are_classified_by_a_run(
    client: Client, with_run: RunFolder, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNCHANGED_FOR", 0.0)
    monkeypatch.setattr(module, "UNREADABLE_AFTER", 0.0)
    monkeypatch.setattr(module, "_PAUSE", 0.01)
    incoming = client.workspace.project.path / "incoming"
    incoming.mkdir()
    begun = client.post("/api/watch", {"folder": "incoming", "run": "train-1"}).json()
    assert begun["folder"] == str(incoming) and begun["arrivals"] == []
    shutil.copy(images / "ok" / "000.png", incoming)
    until(lambda: client.get("/api/watch")["arrivals"])
    (incoming / "broken.png").write_bytes(b"GIF89a")
    until(lambda: len(client.get("/api/watch")["arrivals"]) == 2)
    broken, classified = client.get("/api/watch")["arrivals"]
    assert broken["name"] == "broken.png" and broken["error"]
    assert classified["label"] and classified["evidence"].startswith("data:image/png")
    assert [one["number"] for one in client.get("/api/watch", watch=begun["watch"], after=1)["arrivals"]] == [2]
    assert client.post("/api/watch/stop").json()["watch"] == 0


def test_a_folder_that_is_gone_is_said_until_it_is_back(
    client: Client, with_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.01)
    incoming = client.workspace.project.path / "incoming"
    incoming.mkdir()
    client.post("/api/watch", {"folder": "incoming", "run": "train-1"})
    incoming.rmdir()
    until(lambda: "no such folder" in client.get("/api/watch")["problem"])
    incoming.mkdir()
    until(lambda: not client.get("/api/watch")["problem"])


@pytest.mark.parametrize(
    "folder",
    [
        "/",
        "..",
        "../..",
        "runs/../..",
        "link",
        "/etc",
        "nowhere",
        "\0",
        "~",
        ".",
        "runs",
        "thumbnails/ab",
        "labels.jsonl",
    ],
)
def test_other_folders_are_not_watched(client: Client, with_run: RunFolder, folder: str) -> None:
    (client.workspace.project.path / "link").symlink_to("/")
    reply = client.post("/api/watch", {"folder": folder, "run": "train-1"})
    assert reply.status_code == 422 and reply.json()["error"]
    assert client.get("/api/watch") == {"watch": 0, "suggested": ""}


@pytest.mark.parametrize(
    "body", [{}, {"folder": "x"}, {"folder": "", "run": "train-1"}, {"folder": 1, "run": "train-1"}]
)
def test_a_malformed_request_watches_nothing(client: Client, with_run: RunFolder, body: object) -> None:
    assert client.post("/api/watch", body).status_code == 422


def test_only_finished_runs_watch(client: Client) -> None:
    assert client.post("/api/watch", {"folder": ".", "run": "train-1"}).status_code == 404


def test_folders_of_the_images_and_the_one_that_is_allowed_can_be_watched(
    opened: Opened, images: Path, tmp_path: Path, folder: Path
) -> None:
    project = opened().project
    assert project.watched_folder(str(images / "ok")) == images / "ok"
    with pytest.raises(DataError, match="start Studio with --watch"):
        project.watched_folder(str(folder))
    (folder / "line 2").mkdir()
    assert project.watched_folder(str(folder / "line 2"), folder) == folder / "line 2"
