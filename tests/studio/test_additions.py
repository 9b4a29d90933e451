import io
import os
import stat
import struct
import sys
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.full_disk import files_of_at_most
from tests.studio.clients import Client
from tests.studio.conftest import Opened
from tests.studio.projects import png
from thaw.data.dataset import Dataset
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.studio import additions, archive, uploads
from thaw.studio.marks import EXCLUDED, UNLABELLED, Mark
from thaw.studio.project import Project
from thaw.studio.workspace import Workspace


def zipped(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return stream.getvalue()


def left_out(reply: Any) -> dict[str, int]:
    assert reply.status_code == 200, reply.text
    return {one["reason"]: one["files"] for one in reply.json()["left_out"]}


def files_in(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if not file.is_dir())


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory, quick: Recipe) -> Iterator[Client]:
    """A window of a project to which nothing is added."""
    project = Project.open(tmp_path_factory.mktemp("unchanged") / "studio")
    with closing(Workspace(project, quick, NullReporter().bar)) as workspace:
        before = files_in(project.path)
        yield Client(workspace)
        assert files_in(project.path) == before and not len(workspace.images)


def test_an_image_that_was_dropped_is_copied_and_shown_at_once(empty: Client) -> None:
    assert empty.get("/api/images")["ids"] == []
    assert empty.upload("plates/a.png", png(1)).json()["added"] == 1
    assert (empty.workspace.project.added / "plates" / "a.png").read_bytes() == png(1)
    assert empty.get("/api/images")["ids"] == [0] and empty.get("/api/state")["unlabelled"] == 1
    (row,) = empty.get("/api/rows", ids="0")
    assert row["path"] == "plates/a.png"
    assert empty.http.get(f"/thumbnails/0/{row['digest']}").headers["content-type"] == "image/jpeg"


def test_what_was_added_and_labelled_is_there_at_the_next_start(empty: Client, quick: Recipe) -> None:
    empty.upload("a/x.png", png(1))
    empty.upload("b/x.png", png(2))
    empty.edit([1], "scratch")
    empty.workspace.close()
    again = Workspace(Project.open(empty.workspace.project.path), quick, NullReporter().bar)
    marks = dict(zip(again.images.paths, again.labels.marks(), strict=True))
    again.close()
    assert marks == {"a/x.png": UNLABELLED, "b/x.png": Mark("scratch")}


def test_images_are_added_to_those_of_a_folder_which_stays_as_it_is(opened: Opened, images: Path) -> None:
    before = files_in(images)
    workspace = opened()
    client = Client(workspace)
    client.upload("ok/000.png", png(1))
    client.edit([36], "stain")
    assert workspace.images.manifest.file(36) == workspace.project.added / "ok" / "000.png"
    table = client.http.get("/labels.csv").text.splitlines()
    assert len(table) == 38 and table[-1] == f"{workspace.project.added / 'ok' / '000.png'},stain"
    workspace.close()
    again = opened()
    assert again.labels.mark(36) == Mark("stain") and files_in(images) == before


def test_where_the_data_has_splits_added_images_are_trained_on(opened: Opened, tmp_path: Path) -> None:
    for number, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
        (tmp_path / "images" / place).mkdir(parents=True)
        (tmp_path / "images" / place / "x.png").write_bytes(png(number))
    for workspace in (opened(tmp_path / "images"), None):
        client = Client(workspace or opened(tmp_path / "images"))
        if workspace:
            client.upload("new.png", png(9))
            client.edit([4], "a")
        (tmp_path / "labels.csv").write_bytes(client.http.get("/labels.csv").content)
        client.workspace.close()
        splits = Dataset.open(tmp_path / "labels.csv").manifest.column("split")
        assert sorted(splits) == ["test", "test", "train", "train", "train"]


def test_an_image_that_the_project_has_is_not_added_again(empty: Client) -> None:
    empty.upload("a.png", png(1))
    assert left_out(empty.upload("other/b.png", png(1))) == {"in the project already": 1}
    assert files_in(empty.workspace.project.added) == ["a.png"]


def test_an_image_whose_name_is_taken_gets_a_number(empty: Client) -> None:
    empty.upload("a.png", png(1))
    reply = empty.upload("a.png", png(2)).json()
    assert reply["renamed_examples"] == ["a-2.png"]
    assert (empty.workspace.project.added / "a.png").read_bytes() == png(1)


def test_an_image_that_was_here_before_has_its_label_again(empty: Client, quick: Recipe) -> None:
    empty.upload("a.png", png(1))
    empty.upload("b.png", png(2))
    empty.edit([0], {"excluded": True})
    empty.workspace.close()
    (empty.workspace.project.added / "a.png").unlink()
    again = Client(Workspace(Project.open(empty.workspace.project.path), quick, NullReporter().bar))
    again.upload("c.png", png(1))
    marks = again.workspace.labels.marks()
    again.workspace.close()
    assert marks == [UNLABELLED, EXCLUDED]


def test_an_image_that_was_here_before_has_its_class_again(empty: Client, quick: Recipe) -> None:
    empty.upload("a.png", png(1))
    empty.upload("b.png", png(2))
    empty.edit([0], "dent")
    empty.workspace.close()
    (empty.workspace.project.added / "a.png").unlink()
    again = Client(Workspace(Project.open(empty.workspace.project.path), quick, NullReporter().bar))
    assert again.get("/api/state")["classes"] == []
    again.upload("c.png", png(1))
    state, marks = again.get("/api/state"), again.workspace.labels.marks()
    again.workspace.close()
    assert marks == [UNLABELLED, Mark("dent")] and state["classes"] == [{"name": "dent", "images": 1}]


def test_the_images_of_a_zip_file_are_added(empty: Client) -> None:
    files = {f"trash/{label}/{number}.png": png(number) for number, label in enumerate(("glass", "metal") * 2)}
    reply = empty.upload("trash.zip", zipped({**files, "trash/readme.txt": b"x"}))
    assert left_out(reply) == {"not an image that Thaw reads": 1}
    assert reply.json()["added"] == 4 and files_in(empty.workspace.project.added) == sorted(files)
    assert not empty.workspace.project.uploads.exists()


def test_a_large_file_arrives_in_parts(empty: Client) -> None:
    content = zipped({"a.png": png(1), "b.png": png(2)})
    assert empty.upload("x.zip", content[:500], 0, len(content)).json() == {"waiting": len(content) - 500}
    assert empty.upload("x.zip", content[500:900], 500, len(content)).json() == {"waiting": len(content) - 900}
    assert empty.upload("x.zip", content[900:], 900, len(content)).json()["added"] == 2
    assert files_in(empty.workspace.project.uploads) == []


@pytest.mark.parametrize(("at", "size"), [(1, 3000), (400, 3000), (0, 100), (3000, 2000), (0, 17 << 30)])
def test_parts_that_do_not_fit_are_refused(unchanged: Client, at: int, size: int) -> None:
    assert unchanged.upload("x.zip", b"x" * 500, at, size).status_code in (409, 413, 422)


def test_what_had_not_arrived_is_forgotten_at_the_next_start(empty: Client, quick: Recipe) -> None:
    empty.upload("x.zip", b"x" * 500, 0, 3000)
    empty.workspace.close()
    assert files_in(empty.workspace.project.uploads)
    Workspace(Project.open(empty.workspace.project.path), quick, NullReporter().bar).close()
    assert not empty.workspace.project.uploads.exists()


def test_more_files_than_can_wait_are_refused_unless_one_is_given_up(
    empty: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_MAX_WAITING", 1)
    empty.upload("x.zip", b"x", 0, 3000)
    assert empty.upload("y.zip", b"y", 0, 3000, "fedcba9876543210").status_code == 503
    (waiting,) = empty.workspace.project.uploads.iterdir()
    os.utime(waiting, (0, 0))
    assert empty.upload("y.zip", b"y", 0, 3000, "fedcba9876543210").status_code == 200
    assert not waiting.exists()


NAMES = {
    "../x.png": "a path that leads out of its folder",
    "a/../../x.png": "a path that leads out of its folder",
    "..\\..\\x.png": "a path that leads out of its folder",
    "a/..": "not an image that Thaw reads",
    "/etc/x.png": "an absolute path",
    "//host/x.png": "an absolute path",
    "\\\\host\\x.png": "an absolute path",
    "C:\\x.png": "an absolute path",
    "c:x.png": "an absolute path",
    ".x.png": "hidden",
    "a/.git/x.png": "hidden",
    "__MACOSX/._x.png": "hidden",
    "./x.png": "hidden",
    "@eaDir/x.png": "hidden",
    "a/lost+found/x.png": "hidden",
    "#recycle/a/x.png": "hidden",
    "__pycache__/x.png": "hidden",
    "a//x.png": "a path with an empty name in it",
    "a/ /x.png": "a path with an empty name in it",
    "a\nb.png": "a name with characters that a file name should not have",
    "a\x1b[31m.png": "a name with characters that a file name should not have",
    "a\x7f.png": "a name with characters that a file name should not have",
    "x" * 300 + ".png": "too long a name",
    "é" * 130 + ".png": "too long a name",
    "a/" * 600 + "x.png": "too long a name",
    "x": "not an image that Thaw reads",
    "": "not an image that Thaw reads",
    "x.png.exe": "not an image that Thaw reads",
    "x.svg": "not an image that Thaw reads",
    "x.html": "not an image that Thaw reads",
    ".png": "not an image that Thaw reads",
    "labels.jsonl": "not an image that Thaw reads",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_name_is_left_out_with_its_reason(unchanged: Client, name: str) -> None:
    assert left_out(unchanged.upload(name, png(1))) == {NAMES[name]: 1}
    if name:
        assert left_out(unchanged.upload("x.zip", zipped({name: png(1)}))) == {NAMES[name]: 1}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("aux.png", "a name that Windows does not allow"),
        ("a/COM1.raw.png", "a name that Windows does not allow"),
        ("con/x.png", "a name that Windows does not allow"),
        ("batch 1./x.png", "a name that Windows does not allow"),
        ("batch 1 /x.png", "a name that Windows does not allow"),
        ("a?b.png", "a name with characters that a file name should not have"),
    ],
)
def test_a_name_that_windows_does_not_allow_is_left_out_there_and_ends_no_archive(
    empty: Client, name: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = zipped({name: png(1), "console.png": png(2)})
    with monkeypatch.context() as windows:
        windows.setattr(sys, "platform", "win32")
        outcome = empty.upload("x.zip", content)
    assert left_out(outcome) == {reason: 1} and outcome.json()["added"] == 1
    if os.name != "nt":
        assert empty.upload("x.zip", content).json()["added"] == 1


@pytest.mark.parametrize(
    "name",
    [
        "<img src=x onerror=alert(1)>.png",
        "=cmd|x.png",
        "'; drop.png",
        "%2e%2e%2fx.png",
        "a\u202eb.png",
        "数.PNG",
        "~/x.jpg",
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_strange_name_is_a_name(empty: Client, name: str) -> None:
    assert empty.upload(name, png(1)).json()["added"] == 1
    assert (empty.workspace.project.added / name).is_file()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"<svg onload=alert(1)>",
        b"<!doctype html>",
        b"MZ\x90\0",
        b"GIF89a",
        b"PK\3\4",
        b"%PDF-1.7",
        b"RIFF1234AVI ",
    ],
)
def test_what_is_no_image_is_left_out_whatever_it_is_called(unchanged: Client, content: bytes) -> None:
    assert left_out(unchanged.upload("x.png", content)) == {"not an image that Thaw reads": 1}


def test_a_damaged_image_is_added_and_said_to_be_unreadable(empty: Client) -> None:
    assert empty.upload("x.png", png(1)[:40]).json()["added"] == 1
    (row,) = empty.get("/api/rows", ids="0")
    assert empty.http.get(f"/thumbnails/0/{row['digest']}").status_code == 422


def test_too_large_an_image_is_left_out(empty: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(additions, "MAX_IMAGE_BYTES", 100)
    assert list(left_out(empty.upload("x.png", png(1)))) == ["larger than 100 bytes"]
    assert list(left_out(empty.upload("x.zip", zipped({"x.png": png(1)})))) == ["larger than 100 bytes"]


def with_link() -> bytes:
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr(link, "/etc/passwd")
        made.writestr("good.png", png(1))
    return stream.getvalue()


def with_flags(flags: int) -> bytes:
    content = bytearray(zipped({"x.png": png(1)}))
    at = content.rindex(b"PK\1\2")
    struct.pack_into("<H", content, at + 8, flags)
    struct.pack_into("<H", content, 6, flags)
    return bytes(content)


def with_method(method: int) -> bytes:
    content = bytearray(zipped({"x.png": png(1)}))
    struct.pack_into("<H", content, content.rindex(b"PK\1\2") + 10, method)
    struct.pack_into("<H", content, 8, method)
    return bytes(content)


def with_damage() -> bytes:
    content = bytearray(zipped({"x.png": png(1)}))
    content[100:140] = bytes(40)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (with_link(), "a link"),
        (with_flags(1), "encrypted"),
        (with_method(99), "damaged in the zip file"),
        (with_damage(), "damaged in the zip file"),
        (zipped({"inner.zip": zipped({"x.png": png(1)})}), "not an image that Thaw reads"),
        (zipped({"x.png": zipped({"x.png": png(1)})}), "not an image that Thaw reads"),
    ],
)
def test_a_hostile_entry_is_left_out(empty: Client, content: bytes, reason: str) -> None:
    assert left_out(empty.upload("x.zip", content)) == {reason: 1}
    assert set(files_in(empty.workspace.project.added)) <= {"good.png"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"PK\3\4" + b"\0" * 100,
        b"PK\5\6" + b"\xff" * 18,
        b"PK\5\6" + b"\0" * 10,
        zipped({"x.png": png(1)})[:-30],
        png(1),
    ],
)
def test_what_is_no_zip_file_is_refused(unchanged: Client, content: bytes) -> None:
    reply = unchanged.upload("x.zip", content)
    assert reply.status_code == 422 and "zip file" in reply.json()["error"]


def test_a_bomb_is_refused(empty: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_MAX_SMALL", 1 << 20)
    bomb = zipped({f"{number}.bmp": b"BM" + bytes(1 << 20) for number in range(20)})
    assert len(bomb) < 30_000
    reply = empty.upload("x.zip", bomb)
    assert reply.status_code == 422 and "expands to more than" in reply.json()["error"]
    assert len(files_in(empty.workspace.project.added)) < 7


def test_too_many_entries_are_refused(empty: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    content = zipped({f"{number}.png": b"x" for number in range(50)})
    monkeypatch.setattr(archive, "MAX_ENTRIES", 49)
    assert "50 entries" in empty.upload("x.zip", content).json()["error"]
    monkeypatch.setattr(archive, "_MAX_DIRECTORY", 1000)
    assert "too many entries" in empty.upload("x.zip", content).json()["error"]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_a_link_in_the_project_leads_nowhere(empty: Client, tmp_path: Path) -> None:
    empty.upload("x.png", png(1))
    (empty.workspace.project.added / "out").symlink_to(tmp_path)
    assert left_out(empty.upload("out/y.png", png(2))) == {"the folder is a link to another place": 1}
    assert not (tmp_path / "y.png").exists()
    assert left_out(empty.upload("out/new/folder/y.png", png(2))) == {"the folder is a link to another place": 1}
    (empty.workspace.project.added / "gone").symlink_to(tmp_path / "gone")
    assert left_out(empty.upload("gone/y.png", png(2))) == {"the folder is a link to another place": 1}
    assert not (tmp_path / "new").exists() and not (tmp_path / "gone").exists()
    (empty.workspace.project.added / "loop").symlink_to("loop")
    assert empty.upload("loop/y.png", png(2)).json()["added"] == 0


def test_a_file_in_place_of_a_folder_is_not_replaced(empty: Client) -> None:
    empty.upload("x.png", png(1))
    (reason,) = left_out(empty.upload("x.png/y.png", png(2)))
    assert reason.startswith("cannot be written") and (empty.workspace.project.added / "x.png").read_bytes() == png(1)


def test_a_full_disk_loses_nothing(empty: Client) -> None:
    large = png(3, 200)
    empty.upload("a.png", png(1))
    with files_of_at_most(20_000):
        for path, content in (("b.png", large), ("x.zip", zipped({"c.png": png(2), "d.png": large}))):
            reply = empty.upload(path, content)
            assert reply.status_code == 507 and "free some space" in reply.json()["error"]
        assert empty.upload("x.zip", large[:50_000], 0, len(large)).status_code == 507
    assert files_in(empty.workspace.project.added) == ["a.png", "c.png"] and len(empty.workspace.images) == 2
    assert empty.upload("x.zip", zipped({"c.png": png(2), "d.png": large})).json()["added"] == 1


def test_two_windows_add_and_label_at_once(empty: Client) -> None:
    windows = [empty, Client(empty.workspace)]

    def work(window: Client, first: int) -> list[int]:
        replies = []
        for number in range(first, first + 20):
            replies.append(window.upload(f"{number % 7}.png", png(number)).status_code)
            rows = window.get("/api/images")["ids"]
            replies.append(window.edit(rows[-3:], f"class {first}").status_code)
        return replies

    with ThreadPoolExecutor(2) as pool:
        # The last ten images of one are the first ten of the other.
        replies = [reply for replies in pool.map(work, windows, (0, 10)) for reply in replies]
    assert set(replies) <= {200, 409} and replies.count(200) > 40
    workspace = empty.workspace
    assert len(workspace.images) == len(workspace.labels.marks()) == len(workspace.images.manifest) == 30
    assert len(files_in(workspace.project.added)) == 30
    rows = empty.get("/api/rows", ids=",".join(map(str, range(30))))
    assert [row["mark"] for row in rows] == [mark.to_json() for mark in workspace.labels.marks()]


def test_folders_that_look_like_classes_are_proposed_and_accepted(empty: Client) -> None:
    for number in range(6):
        empty.upload(f"trash/{'glass' if number % 2 else 'metal'}/{number}.png", png(number))
    assert empty.get("/api/state")["proposed"] == []
    ended = empty.post("/api/uploads/end").json()
    assert ended["added"] == 6
    assert ended["proposed"] == [{"name": "glass", "images": 3}, {"name": "metal", "images": 3}]
    empty.edit([0], "other")
    done = empty.post("/api/folder-labels", {"accept": True}).json()
    assert done["undo"]["sentence"] == "5 images labelled" and done["proposed"] == []
    assert [mark.label for mark in empty.workspace.labels.marks()] == ["other", *("glass", "metal") * 2, "glass"]
    empty.post("/api/undo", {"edit": done["undo"]["edit"]})
    assert empty.get("/api/state")["unlabelled"] == 5


def test_folders_are_not_labels_unless_this_is_accepted(empty: Client, quick: Recipe) -> None:
    for number in range(4):
        empty.upload(f"{number % 2}/{number}.png", png(number))
    empty.post("/api/uploads/end")
    assert empty.post("/api/folder-labels", {"accept": False}).json()["unlabelled"] == 4
    empty.workspace.close()
    again = Workspace(Project.open(empty.workspace.project.path), quick, NullReporter().bar)
    again.close()
    assert again.labels.marks() == [UNLABELLED] * 4


@pytest.mark.parametrize("body", [None, [], {"accept": 1}, {"accept": "true"}, {"accept": True, "x": 1}])
def test_a_malformed_answer_is_refused(untouched: Client, body: Any) -> None:
    assert untouched.post("/api/folder-labels", body if body is not None else "x").status_code == 422


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"path": "x.png", "key": "0123456789", "at": "-1", "size": "3"},
        {"path": "x.png", "key": "0123456789", "at": "0", "size": "1e9"},
        {"path": "x.png", "key": "0123456789", "at": "0", "size": "9" * 30},
        {"path": "x.png", "key": "../../../../x", "at": "0", "size": "9"},
        {"path": "x.png", "key": "", "at": "0", "size": "9"},
        {"path": "x.png", "key": "a" * 100, "at": "0", "size": "9"},
    ],
)
def test_a_malformed_upload_is_refused(untouched: Client, query: dict[str, str]) -> None:
    headers = {"Origin": "http://127.0.0.1:8123", "X-Thaw-CSRF": untouched.access.csrf}
    assert untouched.http.post("/api/uploads", params=query, content=b"abc", headers=headers).status_code == 422
