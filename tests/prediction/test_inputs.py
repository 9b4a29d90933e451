from pathlib import Path

import pytest

from thaw.errors import DataError
from thaw.prediction.inputs import LeftOut, check_places, files_at, printable


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_in_a_folder_images_of_any_format_and_files_without_a_suffix_are_taken_and_others_are_named(
    tmp_path: Path,
) -> None:
    images = ("a.HEIC", "b.avif", "c.gif", "d.jfif", "e.png", "scan")
    make(tmp_path, *images, "labels.csv", "more/b.txt", "more/c.txt", "more/d.txt", ".hidden.png", "x.py")
    left_out = LeftOut()
    assert [file.name for file in files_at([tmp_path], left_out)] == list(images)
    assert left_out.sentences == [
        f"left out 6 files: 3 .txt, 1 hidden, 1 .csv, 1 other kind ({tmp_path / 'labels.csv'}, "
        f"{tmp_path / 'more/b.txt'}, {tmp_path / 'more/c.txt'}, 2 more)"
    ]


def test_nothing_is_said_where_nothing_was_left_out(tmp_path: Path) -> None:
    left_out = LeftOut()
    assert len(list(files_at([make(tmp_path, "a.png", "b/c.png")], left_out))) == 2
    assert left_out.sentences == []


def test_a_file_that_is_named_is_taken_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "broken.png").symlink_to(tmp_path / "nothing")
    given = [make(tmp_path, "photo.jpg_large") / "photo.jpg_large", tmp_path / "broken.png"]
    check_places(given)
    assert list(files_at(given)) == given


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("absent.png", "absent.png: no such file or folder"),
        ("e.png/below.png", "no such file or folder"),
        ("a\0b", "no such file or folder"),
        ("empty", "no image in this folder; it is empty"),
        ("texts", r"no image in this folder; left out 1 file: 1 .txt \(.*texts/a.txt\)"),
        ("labels.CSV", "labels.CSV: a .csv file is not an image; give image files, or folders"),
        ("photos.zip", "a .zip file is not an image"),
    ],
)
def test_a_place_without_images_is_refused_by_name(place: str, says: str, tmp_path: Path) -> None:
    make(tmp_path, "e.png", "texts/a.txt", "labels.CSV", "photos.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=says):
        check_places([tmp_path / place])


def test_a_table_among_images_does_not_stop_them(tmp_path: Path) -> None:
    make(tmp_path, "e.png", "labels.csv")
    check_places([tmp_path / "e.png", tmp_path / "labels.csv"])


def test_bytes_of_a_name_that_are_not_utf8_are_escaped() -> None:
    assert printable(Path("é/b\udce9.png")) == "é/b\\xe9.png"
