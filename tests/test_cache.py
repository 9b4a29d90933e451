import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from tempfile import gettempdir

import pytest

from tests.in_use import on_windows
from tests.locking import locked
from tests.unprivileged import unprivileged
from thaw import atomic
from thaw.cache import cache_entries, cache_folder, clear, configured_folder, make_room
from thaw.errors import WriteError


def store(cache: Path, kind: str, name: str, size: int, used: float) -> Path:
    folder = cache / kind / name
    with atomic.sealed_folder(folder) as building:
        (building / "data.bin").write_bytes(bytes(size))
    os.utime(folder / atomic.SEAL, (used, used))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    store(tmp_path, "features", "old", 1000, 1.0)
    store(tmp_path, "features", "new", 1000, 3.0)
    store(tmp_path, "pixels", "images", 5000, 2.0)
    return tmp_path


def test_entries_are_listed_least_recently_used_first(cache: Path) -> None:
    assert [item.folder.name for item in cache_entries(cache)] == ["old", "images", "new"]
    assert all(item.size > 1000 for item in cache_entries(cache))
    assert cache_entries(cache / "nowhere") == []


def test_room_is_made_by_removing_only_the_least_recently_used_features(cache: Path) -> None:
    size = sum(item.size for item in cache_entries(cache) if item.kind == "features")
    assert not make_room(cache, 10, size + 10)
    assert [item.folder.name for item in make_room(cache, 10, size)] == ["old"]
    assert [item.folder.name for item in cache_entries(cache)] == ["images", "new"]
    assert [item.folder.name for item in make_room(cache, 10, 0)] == ["new"]
    assert [item.folder.name for item in cache_entries(cache)] == ["images"]


def test_room_is_not_made_of_what_is_to_be_kept(cache: Path) -> None:
    (cache / "features" / "old").rename(cache / "features" / "old-part-0-of-2")
    assert [item.folder.name for item in make_room(cache, 10, 0, ["old"])] == ["new"]
    assert [item.folder.name for item in make_room(cache, 10, 0, ["new", "other"])] == ["old-part-0-of-2"]


def test_making_room_looks_at_features_only_and_reads_none(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = cache / "remote" / "s3-bucket"
    (mirror / "files").mkdir(parents=True)
    (mirror / "index.jsonl").touch()
    looked_at: list[Path] = []
    rglob = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: (looked_at.append(self), rglob(self, pattern))[1])
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail(f"{self} is read"))
    assert make_room(cache, 10, 100_000) == []
    assert {folder.parent.name for folder in looked_at} == {"features"}


def test_clearing_removes_one_kind_or_all(cache: Path) -> None:
    assert len(clear(cache, ("features",))) == 2
    assert [item.kind for item in cache_entries(cache)] == ["pixels"]
    assert len(clear(cache)) == 1 and cache_entries(cache) == []


@contextmanager
def only_readable(folder: Path) -> Iterator[None]:
    """Others can read what is in a folder, and can remove nothing from it."""
    below_temporary = takewhile(lambda parent: parent != Path(gettempdir()), folder.parents)
    places = [folder, *folder.rglob("*"), *below_temporary]
    for place in places:
        place.chmod(0o755 if place.is_dir() else 0o644)
    folder.chmod(0o555)
    yield
    folder.chmod(0o755)


@pytest.mark.skipif(os.name != "posix", reason="has other rights")
def test_what_cannot_be_removed_is_named(cache: Path) -> None:
    with only_readable(cache / "features"):
        said = unprivileged(lambda: clear(cache, ("features",)))
        assert str(cache / "features") in said and "cannot be removed, and 1 other entry of the cache neither" in said
        assert unprivileged(lambda: make_room(cache, 10, 0)) == "[]"
    assert len(cache_entries(cache)) == 3


def test_what_is_left_of_an_entry_is_named_each_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    for _ in range(2):
        with pytest.raises(WriteError, match=r"features/\.(old|new)\..*\.tmp: cannot be removed, and 1 other entry"):
            clear(cache, ("features",))
    monkeypatch.undo()
    clear(cache)
    assert not list((cache / "features").iterdir())


def test_on_windows_an_entry_that_cannot_be_removed_may_be_one_that_is_read(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_windows(monkeypatch, lambda path: path.name == "old")
    with pytest.raises(
        WriteError, match="old: cannot be removed; a run or Studio may be reading it, else remove it as"
    ):
        clear(cache, ("features",))


@pytest.mark.skipif(os.name != "posix", reason="needs file locks")
def test_an_entry_that_another_process_has_just_written_stays_and_does_not_count_as_removed(cache: Path) -> None:
    with locked(cache / "features" / "old"):
        assert [entry.folder.name for entry in make_room(cache, 0, 0)] == ["new"]
        assert [entry.folder.name for entry in clear(cache)] == ["images"]
    assert [entry.folder.name for entry in clear(cache)] == ["old"]


def test_entries_being_written_are_not_listed(cache: Path) -> None:
    (cache / "features" / ".half.123.tmp").mkdir()
    assert len(cache_entries(cache)) == 3


def test_clearing_leaves_what_is_being_written(cache: Path) -> None:
    with atomic.sealed_folder(cache / "features" / "building") as building:
        (building / "data.bin").write_bytes(b"half")
        (cache / "pixels" / "images.duplicates-1.json").write_text("[]")
        assert len(clear(cache)) == 3
        assert list((cache / "pixels").iterdir()) == []
    assert [item.folder.name for item in cache_entries(cache)] == ["building"]


def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_one_and_a_line_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "file"))
    used = cache_folder()
    assert used.is_dir() and used == cache_folder() != configured_folder()
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"thaw: {tmp_path}/file: cannot be written: {tmp_path}/file is not a folder; using the temporary cache {used} "
        "this time"
    ]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def everybodys_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user can enter and write to, which is also the temporary folder."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.mark.skipif(os.name != "posix", reason="needs permissions of POSIX")
def test_a_cache_or_a_part_of_it_that_belongs_to_another_user_is_replaced(
    everybodys_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = everybodys_folder / "home"
    (home / ".cache" / "thaw" / "pixels").mkdir(parents=True)
    monkeypatch.delenv("THAW_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, modes in {"the home": (0o555, 0o555, 0o555), "a part": (0o777, 0o777, 0o555)}.items():
        for folder, mode in zip((".cache", ".cache/thaw", ".cache/thaw/pixels"), modes, strict=True):
            (home / folder).chmod(mode)
        home.chmod(0o755)
        monkeypatch.setenv("HOME", str(home))
        assert "thaw-cache-" in unprivileged(cache_folder), name


def test_a_user_without_a_home_folder_gets_a_temporary_cache(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("THAW_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert cache_folder().is_dir()
    assert "this user has no home folder" in capsys.readouterr().err
    with pytest.raises(WriteError, match="set THAW_CACHE"):
        configured_folder()
