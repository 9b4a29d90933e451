import json
from pathlib import Path

import pytest

from thaw.errors import DataError
from thaw.labelling.folder import ImageFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "below/b.png", "below/c.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    return tmp_path / "images"


def table(file: Path, text: str) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def labels(found: ImageFolder) -> dict[str, list[str]]:
    columns = (found.manifest.column(name) for name in ("path", "labels"))
    return dict(zip(*columns, strict=True))


def test_folders_in_a_folder_of_images_are_no_labels(folder: Path) -> None:
    assert labels(ImageFolder.open(folder)) == {"a.png": [], "below/b.png": [], "below/c.png": []}


@pytest.mark.parametrize("place", ["images/labels.csv", "elsewhere/labels.csv"])
def test_paths_are_relative_to_the_images_wherever_the_table_is(folder: Path, place: str) -> None:
    file = table(folder.parent / place, "path,label\nbelow/b.png,ok\na.png,\n")
    found = ImageFolder.open(folder, file)
    assert labels(found) == {"a.png": [], "below/b.png": ["ok"], "below/c.png": []}
    assert found.manifest.classes == ("ok",)


def test_paths_may_be_relative_to_the_table_or_absolute_or_go_through_a_link(folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder)
    text = f"path,label\nimages/a.png,ok\n{folder}/below/b.png,crack\nlink/below/c.png,ok\n"
    found = ImageFolder.open(folder, table(folder.parent / "labels.csv", text))
    assert labels(found) == {"a.png": ["ok"], "below/b.png": ["crack"], "below/c.png": ["ok"]}


def test_an_export_is_a_table_of_labels(folder: Path) -> None:
    tasks = [{"id": 1, "image": "/data/upload/1/1f2e3d4c-a.png", "kind": "ok"}]
    file = table(folder.parent / "downloads" / "export.json", json.dumps(tasks))
    assert labels(ImageFolder.open(folder, file))["a.png"] == ["ok"]


def test_several_labels_of_an_image_are_one_class(folder: Path) -> None:
    found = ImageFolder.open(
        folder, table(folder.parent / "t.csv", "path,labels\na.png,stain|crack\nbelow/b.png,crack|stain\n")
    )
    assert labels(found) == {"a.png": ["crack|stain"], "below/b.png": ["crack|stain"], "below/c.png": []}


def test_an_empty_cell_where_others_have_several_labels_says_that_an_image_shows_none(folder: Path) -> None:
    """So `thaw train` learns it from the same table."""
    text = "path,labels\na.png,crack|stain\nbelow/b.png,\n"
    found = ImageFolder.open(folder, table(folder.parent / "t.csv", text))
    assert labels(found) == {"a.png": ["crack|stain"], "below/b.png": ["no label"], "below/c.png": []}
    assert found.manifest.classes == ("crack|stain", "no label")


def test_an_empty_cell_where_images_have_one_label_says_nothing_and_is_told(folder: Path) -> None:
    found = ImageFolder.open(folder, table(folder.parent / "t.csv", "path,label\na.png,ok\nbelow/b.png,\n"))
    assert labels(found) == {"a.png": ["ok"], "below/b.png": [], "below/c.png": []}
    assert "t.csv: not used for want of a label: 1 row" in found.notes


def test_labels_of_other_images_are_a_remark(folder: Path) -> None:
    found = ImageFolder.open(folder, table(folder.parent / "t.csv", "path,label\na.png,ok\nz.png,ok\n"))
    assert "t.csv: 1 path not in the folder of images, for example z.png" in found.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\nz.png,ok\ny.png,ok\n", r"t\.csv: no path in it is an image in .*images, for example z\.png"),
        ("path,label\na.png,ok\na.png,crack\n", "conflicting labels, ok and crack"),
        ("path,label\na.png,ok\nbelow/b.png,OK\n", "differ only in case"),
        ("path,tag\na.png,ok\n", "has no column 'label'"),
        ("path,label\n", "the table has no rows"),
    ],
)
def test_a_table_that_does_not_fit_is_one_sentence(folder: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageFolder.open(folder, table(folder.parent / "t.csv", text))


def test_what_a_table_has_besides_labels_is_told(folder: Path) -> None:
    found = ImageFolder.open(folder, table(folder / "t.csv", "path,label,day\nA.png,ok,1\n"))
    assert labels(found)["a.png"] == ["ok"]
    assert "t.csv: column day not used" in found.notes and any("spelled otherwise" in note for note in found.notes)
    assert not any("not listed" in note for note in found.notes)


def test_a_table_that_is_a_link_to_itself_is_one_sentence(folder: Path) -> None:
    (folder / "t.csv").symlink_to(folder / "t.csv")
    with pytest.raises(DataError, match=r"t\.csv: no such file"):
        ImageFolder.open(folder, folder / "t.csv")


def test_a_missing_table_and_a_folder_without_images_are_reported(folder: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: no such file"):
        ImageFolder.open(folder, folder.parent / "t.csv")
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no image in this folder, it is empty"):
        ImageFolder.open(folder / "empty")
    with pytest.raises(DataError, match="is a file, not a folder"):
        ImageFolder.open(folder / "a.png")
    assert not list((folder / "empty").iterdir())
