import io
from pathlib import Path

import pytest
from PIL import Image

from tests.studio.conftest import Opened
from thaw.errors import UnreadableImage
from thaw.studio.thumbnails import SMALL
from thaw.studio.workspace import Workspace


def test_a_thumbnail_is_made_once(workspace: Workspace) -> None:
    made = workspace.thumbnails.small(5)
    (file,) = workspace.project.thumbnails.rglob("*.jpg")
    assert file.read_bytes() == made and max(Image.open(io.BytesIO(made)).size) == SMALL
    stamp = file.stat().st_mtime_ns
    assert workspace.thumbnails.small(5) == made and file.stat().st_mtime_ns == stamp


def test_a_torn_thumbnail_is_made_again(workspace: Workspace) -> None:
    made = workspace.thumbnails.small(5)
    (file,) = workspace.project.thumbnails.rglob("*.jpg")
    file.write_bytes(made[:-20])
    assert workspace.thumbnails.small(5) == made == file.read_bytes()


def test_without_room_a_thumbnail_is_made_each_time(workspace: Workspace) -> None:
    workspace.project.thumbnails.write_bytes(b"not a folder")
    assert workspace.thumbnails.small(5) == workspace.thumbnails.small(5)


def test_a_file_that_was_replaced_is_not_shown_as_the_one_before(opened: Opened, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    workspace = opened(folder)
    Image.new("RGB", (8, 8), "blue").save(folder / "a.png")
    for made in (workspace.thumbnails.small, workspace.thumbnails.large):
        with pytest.raises(UnreadableImage, match="replaced while Studio is open"):
            made(0)
    assert not list(workspace.project.thumbnails.rglob("*.jpg"))


def test_a_project_that_was_removed_does_not_come_back(workspace: Workspace) -> None:
    workspace.project.path.rename(workspace.project.path.with_name("moved"))
    assert workspace.thumbnails.small(5)
    assert not workspace.project.path.exists()


def test_a_file_that_has_gone_has_no_thumbnail(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace.images, "file", lambda row: Path("/nowhere/x.png"))
    with pytest.raises(UnreadableImage):
        workspace.thumbnails.large(5)
