import io
import shutil
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from tests.studio.clients import Client
from tests.studio.projects import png, rows
from tests.studio.waiting import until
from thaw.data.dataset import Dataset
from thaw.errors import DataError, WriteError
from thaw.studio.class_folders import copy_to_class_folders, places_of, renamed_classes
from thaw.studio.images import Images
from thaw.studio.marks import EXCLUDED, Mark
from thaw.studio.workspace import Workspace


def advance(done: int, total: int) -> None:
    assert done < total


def test_labelled_images_are_copied_into_a_new_folder_each_time(workspace: Workspace) -> None:
    workspace.labels.edit({0: Mark("ok")}, Mark("stain"))
    workspace.labels.edit({1: Mark("ok")}, EXCLUDED)
    for number in (1, 2):
        copied = copy_to_class_folders(workspace.project, workspace.images, workspace.labels.marks(), advance)
        assert copied.path == workspace.project.path / f"class-folders-{number}" and copied.images == 35
        dataset = Dataset.open(copied.path)
        assert dataset.classes == ("ok", "scratch", "stain") and len(dataset) == 35
        # Two files of the class stain are called 000.png.
        assert (copied.path / "stain" / "000-2.png").is_file()


def test_an_image_that_was_replaced_is_left_out_of_the_copy(empty: Client) -> None:
    for number in range(2):
        empty.upload(f"{number}.png", png(number))
    empty.edit([0, 1], "ok")
    workspace = empty.workspace
    workspace.images.file(1).write_bytes(png(7))
    copied = copy_to_class_folders(workspace.project, workspace.images, workspace.labels.marks(), advance)
    assert copied.images == 1 and copied.left_out == ("1.png",)
    with zipfile.ZipFile(io.BytesIO(empty.http.get("/class-folders.zip").content)) as archive:
        assert archive.namelist() == ["ok/0.png", "left-out.txt"]


@pytest.mark.parametrize(
    ("label", "folder"),
    [
        ("..", "_"),
        (".", "_"),
        (".hidden", "_.hidden"),
        ("a/b", "a_b"),
        ("../../etc", "_.._.._etc"),
        ("a\\b", "a_b"),
        ("C:", "C_"),
        ("con", "_con"),
        ("NUL.x", "_NUL.x"),
        ("a. ", "a"),
        ("<b>", "_b_"),
        ("é" * 100, "é" * 100),
        ("数" * 100, "数" * 66),
        ("=x", "=x"),
    ],
)
def test_a_hostile_class_name_stays_in_the_folder(label: str, folder: str) -> None:
    places = places_of(rows(1), [Mark(label)])
    assert places == {0: f"{folder}/image0.png"}
    assert renamed_classes([Mark(label)]) == ({} if label == folder else {label: folder})


def test_classes_whose_folders_would_be_one_have_two() -> None:
    assert list(renamed_classes([Mark("a/b"), Mark("a?b"), Mark("A:B")]).values()) == ["a_b", "a_b-2", "A_B-3"]


def test_thousands_of_files_of_one_name_are_numbered_at_once() -> None:
    number, began = 6000, time.process_time()
    places = places_of(rows(number, paths=[f"{row}/x.png" for row in range(number)]), [Mark("ok")] * number)
    # To try every number anew for each file would take 18 million steps.
    assert time.process_time() - began < 2
    assert list(places.values()) == ["ok/x.png", *(f"ok/x-{row}.png" for row in range(2, number + 1))]


def test_without_labels_there_is_nothing_to_copy(empty: Client) -> None:
    with pytest.raises(DataError, match="label images first"):
        copy_to_class_folders(empty.workspace.project, empty.workspace.images, [], advance)
    assert empty.post("/api/class-folders").status_code == 422
    assert empty.http.get("/class-folders.zip").status_code == 422


def test_a_copy_for_which_there_is_no_room_is_not_begun(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(0, 0, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(WriteError, match="the disk is full"):
        copy_to_class_folders(workspace.project, workspace.images, workspace.labels.marks(), advance)
    assert not workspace.project.class_folders(1).exists()


def test_a_disk_that_is_full_meanwhile_keeps_no_part(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bytes:
        raise WriteError("x", "the disk is full")

    monkeypatch.setattr(Images, "read", full)
    with pytest.raises(WriteError):
        copy_to_class_folders(workspace.project, workspace.images, workspace.labels.marks(), advance)
    assert not list(workspace.project.path.glob("*class-folders*"))


def test_the_copy_is_made_in_the_background_and_said(client: Client, tmp_path: Path) -> None:
    client.workspace.background.start()
    assert client.post("/api/class-folders").status_code == 200
    until(lambda: client.get("/api/state")["copied"])
    copied = client.get("/api/state")["copied"]
    assert copied["images"] == 36 and Path(copied["path"]).is_dir() and not copied["left_out"]


def test_the_zip_file_has_the_same_folders(client: Client, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(client.http.get("/class-folders.zip").content)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out")
    assert len(Dataset.open(tmp_path / "out")) == 36
