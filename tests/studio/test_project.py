import shutil
from pathlib import Path

import pytest

from tests.studio.conftest import Opened
from thaw.data.dataset import Dataset
from thaw.errors import DataError
from thaw.remote import address_of, local_path
from thaw.remote.address import with_password
from thaw.studio.project import Project


def test_a_project_remembers_its_images(opened: Opened, tmp_path: Path, images: Path) -> None:
    opened()
    assert Project.open(tmp_path / "studio").images == images


def test_a_start_that_fails_leaves_nothing(opened: Opened, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        opened(tmp_path / "imgaes")
    assert not (tmp_path / "studio").exists()


def test_a_start_that_fails_changes_no_project(opened: Opened, tmp_path: Path, images: Path) -> None:
    opened()
    for other, problem in ((tmp_path / "imgaes", "no such folder"), (images / "ok", "another Studio has this")):
        with pytest.raises(DataError, match=problem):
            opened(other)
        assert Project.open(tmp_path / "studio").images == images


@pytest.mark.parametrize("content", ["", "{", "[]", '{"images": 1}'])
def test_a_damaged_note_of_the_images_is_written_again(
    opened: Opened, tmp_path: Path, images: Path, content: str
) -> None:
    project = opened().project
    (project.path / "project.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="damaged; say which images"):
        Project.open(project.path)
    Project.open(project.path, images).make()
    assert Project.open(project.path).images == images


def test_a_new_project_without_images_has_its_own_folder_for_them(tmp_path: Path) -> None:
    project = Project.open(tmp_path / "cracks")
    project.make()
    assert project.has_own_images and project.images == tmp_path / "cracks" / "images" and project.name == "cracks"
    # It can be moved.
    moved = project.path.rename(tmp_path / "moved")
    assert Project.open(moved).images == moved / "images"
    assert Project.open(moved, moved / "images").has_own_images


def test_labels_need_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="say which images these labels are of"):
        Project.open(tmp_path / "studio", table=tmp_path / "labels.csv")


def test_a_folder_with_other_files_is_no_project(tmp_path: Path, images: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="is not a project of Studio"):
        Project.open(tmp_path, images)


def test_what_studio_writes_never_becomes_data(opened: Opened, tmp_path: Path, images: Path) -> None:
    (tmp_path / "images").mkdir()
    for label in ("ok", "scratch"):
        Path(tmp_path / "images" / label).symlink_to(images / label)
    Project.open(tmp_path / "images" / "studio", images).make()
    assert len(Dataset.open(tmp_path / "images")) == 24


def test_images_without_class_folders_begin_without_a_label(opened: Opened, images: Path) -> None:
    workspace = opened(images / "ok")
    assert len(workspace.images) == 12 and workspace.labels.classes == ()
    assert workspace.notes == ("every image begins without a label: the folder has no class folders",)


def test_a_table_gives_labels_to_some_images(opened: Opened, images: Path, tmp_path: Path) -> None:
    table = tmp_path / "some.csv"
    table.write_text("path,label\n000.png,good\n003.png,bad\n", encoding="utf-8")
    workspace = opened(images / "ok", table)
    assert workspace.labels.classes == ("bad", "good")
    assert [row for row, mark in enumerate(workspace.labels.marks()) if mark.label] == [0, 3]


def test_images_on_remote_storage_are_mirrored(
    opened: Opened, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fsspec", reason="needs the extra remote")
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    address = f"file://{images / 'ok'}"
    workspace = opened(Path(address))
    assert workspace.images.manifest.root == local_path(address) and len(workspace.images) == 12
    assert workspace.thumbnails.small(0) and address_of(Project.open(workspace.project.path).images) == address


def test_a_password_in_an_address_opens_the_images_and_is_not_written(tmp_path: Path) -> None:
    secret = Path("ftp://me:secret@host")
    project = Project.open(tmp_path / "studio", secret / "images", secret / "labels.csv")
    project.make()
    assert not any("secret" in file.read_text("utf-8") for file in project.path.rglob("*") if file.is_file())
    again = Project.open(project.path)
    assert again.table and address_of(again.table) == "ftp://me@host/labels.csv"
    assert with_password(address_of(again.images)) == "ftp://me:secret@host/images"


def test_several_labels_of_an_image_are_refused(opened: Opened, images: Path, tmp_path: Path) -> None:
    table = tmp_path / "some.csv"
    table.write_text("path,labels\n000.png,good|bad\n", encoding="utf-8")
    with pytest.raises(DataError, match="Studio edits one label an image"):
        opened(images / "ok", table)


def test_folders_whose_names_a_table_of_labels_reads_otherwise_are_refused(
    opened: Opened, images: Path, tmp_path: Path
) -> None:
    for label, name in (("ok", "1"), ("stain", "1.0")):
        shutil.copytree(images / label, tmp_path / "images" / name)
    with pytest.raises(DataError, match=r"images: the class 1\.0 is read otherwise"):
        opened(tmp_path / "images")
    (tmp_path / "images" / "1.0").rename(tmp_path / "images" / "1.1")
    assert opened(tmp_path / "images").labels.classes == ("1", "1.1")
