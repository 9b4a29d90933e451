import unicodedata
from pathlib import Path

import pytest

from thaw.data.table_paths import Folders


def files(root: Path, *paths: str) -> Folders:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return Folders(root)


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Prüfung/fissuré.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("on_disk", "written"),
    [
        (COMPOSED, DECOMPOSED),
        (DECOMPOSED, COMPOSED),
        ("images/crack/a.png", "images\\crack\\a.png"),
        ("images/crack/a.png", "Images/crack/A.PNG"),
        ("images/a.png", "images/../images/A.png"),
        ("images/RA-1.v2.JPG", "images/RA-1.v2"),
        ("images/7.png", "Images/7"),
    ],
)
def test_a_path_is_spelled_as_on_disk(tmp_path: Path, on_disk: str, written: str) -> None:
    folders = files(tmp_path, on_disk, "images/b.png")
    (found, other), notes = folders.matched([written, "images/b.png"])
    assert (tmp_path / found).is_file() and other == "images/b.png"
    shown = ascii if unicodedata.normalize("NFC", written) == unicodedata.normalize("NFC", on_disk) else str
    assert len(notes) == 1 and f"for example {shown(written)}, which is {shown(found)}" in notes[0]


def test_an_absolute_path_is_spelled_as_on_disk(tmp_path: Path) -> None:
    folders = files(tmp_path, "Images/a.png")
    assert folders.matched([f"{tmp_path.as_posix()}/images/A.png"])[0] == [f"{tmp_path.as_posix()}/Images/a.png"]


def test_the_exact_spelling_comes_first_and_of_several_others_none_is_guessed(tmp_path: Path) -> None:
    paths = ["a.png", "A.png", "b/x.png", "missing/a.png", "c.png"]
    folders = files(tmp_path, "a.png", "A.png", "b/X.png", "b/x.PNG")
    assert folders.matched(paths) == (paths, ())


def test_a_suffix_is_added_only_for_one_image(tmp_path: Path) -> None:
    folders = files(tmp_path, "1.png", "1.jpg", "2.txt", ".3.png", "4/a.png", "A.png", "a.jpg")
    assert folders.matched(["1", "2", ".3", "4"]) == (["1", "2", ".3", "4"], ())
    assert folders.matched(["A"])[0] == ["A.png"]


def test_accents_come_before_case(tmp_path: Path) -> None:
    upper, lower = unicodedata.normalize("NFD", "É.png"), unicodedata.normalize("NFD", "é.png")
    assert files(tmp_path, upper, lower).matched([unicodedata.normalize("NFC", lower)])[0] == [lower]


def test_images_in_the_same_folders_are_found(tmp_path: Path) -> None:
    folders = files(tmp_path, "a.png", "x/b.JPG", "x/c.txt", "x/.d.png", "x/deeper/e.png", "y/f.png")
    assert folders.images_next_to(["x/1.png", "x/2.png"]) == {"x/b.JPG"}
    assert folders.images_next_to(["1.png", "gone/2.png"]) == {"a.png"}
