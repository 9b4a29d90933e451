import errno
import os
from pathlib import Path

import pytest

from tests.in_use import ACCESS_DENIED, IN_USE, on_windows, open_elsewhere
from tests.unprivileged import unprivileged
from thaw.errors import ThawError, WriteError
from thaw.writing import (
    FULL,
    Own,
    advising,
    check_closed,
    check_has_folder,
    check_new,
    check_writable,
    explained,
    failure,
)


def own() -> Own:
    return Own("a recipe", lambda file: file.read_text().startswith("recipe"))


def test_a_free_place_can_be_written_also_below_folders_that_do_not_exist(tmp_path: Path) -> None:
    check_new(tmp_path / "a.yaml")
    check_new(tmp_path / "no" / "such" / "a.yaml")
    check_writable(tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_whatever_is_there_is_named_and_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name, kind in {
        "file": "already exists;",
        "folder": r"already exists \(a folder\);",
        "link": r"already exists \(a link to file\);",
        "dangling": r"already exists \(a link to nowhere\);",
        "pipe": r"already exists \(a device, pipe or socket\);",
    }.items():
        with pytest.raises(WriteError, match=kind):
            check_new(tmp_path / name)
    with pytest.raises(WriteError, match=r"null: already exists \(a device"):
        check_new(Path("/dev/null"))


def test_only_a_plain_file_that_is_recognised_may_be_replaced(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("recipe")
    check_new(file, own())
    (tmp_path / "link.yaml").symlink_to(file)
    with pytest.raises(WriteError, match="a link to"):
        check_new(tmp_path / "link.yaml", own())
    file.write_text("notes")
    with pytest.raises(WriteError, match="already exists and is not a recipe; remove it or choose another place"):
        check_new(file, own())


def test_a_path_through_a_file_or_without_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(WriteError, match=r"a\.yaml: cannot be written: .*file is not a folder"):
        check_new(tmp_path / "file" / "no" / "a.yaml")
    with pytest.raises(WriteError, match=r"file: cannot be written: .*file is not a folder"):
        check_writable(tmp_path / "file")
    with pytest.raises(WriteError, match="there is no folder"):
        check_has_folder(tmp_path / "no" / "a.yaml")


@pytest.mark.skipif(os.name != "posix", reason="needs permissions of POSIX")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    said = unprivileged(lambda: check_new(tmp_path / "locked" / "no" / "a.yaml"))
    assert "a.yaml: cannot be written: permission denied in " in said
    said = unprivileged(lambda: check_writable(tmp_path / "locked"))
    assert "locked: cannot be written: permission denied in " in said


def test_an_error_of_the_system_becomes_one_sentence(tmp_path: Path) -> None:
    def write(number: int, kinds: dict[int, str] | None = None) -> None:
        with explained(tmp_path / "a.yaml", "12 MB needed", *([kinds] if kinds else [])):
            raise OSError(number, os.strerror(number))

    for number, sentence in {
        errno.ENOSPC: r"a\.yaml: cannot be written: the disk is full \(12 MB needed\); free some space",
        errno.EDQUOT: r"the disk quota is used up \(12 MB needed\); free some space",
        errno.EROFS: r"the file system is read-only; choose another place",
        errno.ENAMETOOLONG: "the name is too long",
    }.items():
        with pytest.raises(WriteError, match=sentence):
            write(number)
    with pytest.raises(BlockingIOError):
        write(errno.EAGAIN)
    with pytest.raises(PermissionError):
        write(errno.EACCES, FULL)


def test_windows_says_of_a_file_that_is_in_use_to_close_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "predictions.csv"
    file.touch()
    for number in (ACCESS_DENIED, IN_USE):
        said = str(failure(file, open_elsewhere(number)))
        assert said == (
            f"{file}: is open in another program, such as Excel, or must not be written; close it there, or choose "
            "another place"
        )
        assert "permission denied; choose another place" in str(failure(tmp_path / "none.csv", open_elsewhere(number)))
    assert "permission denied; choose another place" in str(failure(file, PermissionError(errno.EACCES, "denied")))
    check_closed(file)
    on_windows(monkeypatch, lambda path: path == file)
    with pytest.raises(WriteError, match=r"predictions\.csv: is open in another program"):
        check_closed(file)


def test_advice_is_added_to_the_sentence() -> None:
    def write() -> None:
        with advising(", then re-run with --resume"), explained(Path("/a.yaml")):
            raise OSError(errno.EDQUOT, "")

    with pytest.raises(ThawError, match=r"^/a\.yaml: .* used up; free some space, then re-run with --resume$"):
        write()
