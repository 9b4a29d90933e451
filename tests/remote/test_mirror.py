"""A mirror equals the storage, downloads nothing twice, and has no part of a file, however its download ended."""

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cli.running import thaw
from tests.full_disk import files_of_at_most
from tests.remote.storages import contents, downloads, put
from thaw.errors import DataError, PackageError, WriteError
from thaw.remote import mirror, mirrored, mirrored_files

IMAGES = {"ok/1.png": b"one", "ok/2.png": b"two", "bad/3.png": b"three"}


def test_a_local_place_is_what_it_was(tmp_path: Path) -> None:
    assert mirrored(tmp_path) == tmp_path and mirrored("images") == Path("images")


def test_a_folder_is_mirrored_without_hidden_files_and_again_only_where_it_changed(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with downloads(monkeypatch) as names:
        copy = mirrored(f"{bucket}/images")
        assert contents(copy) == IMAGES and len(names) == 3
        names.clear()
        assert mirrored(f"{bucket}/images/") == copy and not names
        put({"images/ok/1.png": b"ONE", "images/new/5.png": b"five"})
        put({"images/ok/2.png": b"two"}, "memory://elsewhere")
        (copy / "bad/3.png").unlink()
        mirrored(f"{bucket}/images")
        assert sorted(names) == ["images/bad/3.png", "images/new/5.png", "images/ok/1.png"]
    assert contents(copy) == {**IMAGES, "ok/1.png": b"ONE", "new/5.png": b"five"}


def test_what_was_removed_goes_and_nothing_else(bucket: str) -> None:
    fsspec = pytest.importorskip("fsspec")
    everything, copy = mirrored(bucket), mirrored(f"{bucket}/images")
    fsspec.filesystem("memory").rm("/bucket/images/ok", recursive=True)
    mirrored(f"{bucket}/images")
    assert contents(copy) == {"bad/3.png": b"three"} and not (copy / "ok").exists()
    assert contents(everything) == {"images/bad/3.png": b"three", "other/4.png": b"four"}


@pytest.mark.parametrize("key", ["modify", "modificationTime", "last_modified", "sha", None])
def test_a_file_of_the_same_size_is_downloaded_again_where_its_version_changed_or_is_unknown(
    bucket: str, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    """As listings of FTP, WebHDFS and others tell it."""
    fsspec = pytest.importorskip("fsspec")
    memory, version = type(fsspec.filesystem("memory")), "1"
    listed = memory.find

    def find(self: object, path: str, **kwargs: object) -> dict[str, dict[str, object]]:
        facts = {"type": "file", **({key: version} if key else {})}
        found = listed(self, path, **kwargs).items()
        return {name: {**facts, "name": name, "size": about["size"]} for name, about in found}

    with monkeypatch.context() as patch, downloads(monkeypatch) as names:
        patch.setattr(memory, "find", find)
        copy = mirrored(f"{bucket}/images")
        names.clear()
        mirrored(f"{bucket}/images")
        assert len(names) == (0 if key else 3)
        put({"images/ok/1.png": b"ONE"})
        version = "2"
        assert contents(mirrored(f"{bucket}/images"))["ok/1.png"] == b"ONE"
    assert contents(copy) == {**IMAGES, "ok/1.png": b"ONE"}


def test_a_file_outside_of_any_folder_leaves_the_mirror_as_it_is(cache: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs the extra remote")
    fsspec.filesystem("memory").pipe("memory://alone.png", b"one")
    with pytest.raises(DataError, match=r"^memory://alone\.png: is a file outside of any folder; put it into one$"):
        mirrored("memory://alone.png")
    fsspec.filesystem("memory").rm("/alone.png")
    put({"a.png": b"one"}, "memory://alone.png")
    assert contents(mirrored("memory://alone.png")) == {"a.png": b"one"}
    fsspec.filesystem("memory").rm("/alone.png", recursive=True)


def test_a_file_that_became_a_folder_is_mirrored(bucket: str) -> None:
    fsspec = pytest.importorskip("fsspec")
    copy = mirrored(f"{bucket}/images/ok/1.png")
    fsspec.filesystem("memory").rm("/bucket/images/ok/1.png")
    put({"images/ok/1.png/a.png": b"one"})
    assert mirrored(f"{bucket}/images/ok/1.png") == copy and contents(copy) == {"a.png": b"one"}


def test_a_file_is_mirrored_alone(bucket: str) -> None:
    copy = mirrored(f"{bucket}/images/ok/1.png")
    assert copy.read_bytes() == b"one" and contents(copy.parents[1]) == {"ok/1.png": b"one"}


def test_some_files_are_mirrored_and_those_that_are_not_there_go(bucket: str, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    copy = mirrored(f"{bucket}/images")
    fsspec.filesystem("memory").rm("/bucket/images/ok/1.png")
    wanted = [copy / "ok/1.png", copy / "bad/3.png", copy / "no/such.png", copy.parent / "other/4.png"]
    mirrored_files([*wanted, tmp_path / "local.png"])
    assert [file.exists() for file in wanted] == [False, True, False, True]
    assert (copy / "ok/2.png").exists()


def test_files_are_counted_while_they_are_downloaded(bucket: str) -> None:
    seen: list[tuple[int, int]] = []
    titles: list[str] = []
    mirrored(f"{bucket}/images", lambda title: titles.append(title) or (lambda *moved: seen.append(moved)))  # type: ignore[func-returns-value]
    assert titles == [f"download {bucket}/images"] and seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("error", [DataError("lost"), KeyboardInterrupt()], ids=["lost connection", "interrupt"])
def test_a_download_that_ends_midway_keeps_whole_files_and_is_resumed(
    bucket: str, cache: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(mirror, "PARALLEL", 1)
    with downloads(monkeypatch, [None, None, error]), pytest.raises(type(error)):  # type: ignore[list-item]
        mirrored(f"{bucket}/images")
    (folder,) = (cache / "remote").iterdir()
    assert len(contents(folder / "files")) == 2 and not list((folder / "parts").iterdir())
    assert b"half" not in contents(folder / "files").values()
    with downloads(monkeypatch) as names:
        assert contents(mirrored(f"{bucket}/images")) == IMAGES
    assert len(names) == 1


KILLED = """
import os, signal
from thaw.remote import mirror, mirrored
from thaw.remote.storage import Storage
download, done = Storage.download, []
def dies(self, file, to):
    if len(done) == 2:
        to.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    download(self, file, to)
    done.append(file)
mirror.PARALLEL, Storage.download = 1, dies
mirrored(os.environ["ADDRESS"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills by a signal")
def test_a_killed_download_leaves_no_part_of_a_file_and_is_resumed(cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="needs the extra remote")
    for number in range(5):
        (tmp_path / "storage").mkdir(exist_ok=True)
        (tmp_path / "storage" / f"{number}.png").write_bytes(b"%d" % number)
    address = f"file://{tmp_path}/storage"
    done = subprocess.run([sys.executable, "-c", KILLED], env={**os.environ, "ADDRESS": address}, check=False)
    assert done.returncode == -signal.SIGKILL
    (folder,) = (cache / "remote").iterdir()
    assert len(contents(folder / "files")) == 2 and len(list((folder / "parts").iterdir())) == 1
    assert contents(mirrored(address)) == {f"{number}.png": b"%d" % number for number in range(5)}
    assert not list((folder / "parts").iterdir())


def test_a_full_disk_is_one_sentence_and_leaves_whole_files(bucket: str, cache: Path) -> None:
    put({"images/large.png": b"x" * 100_000})
    with (
        files_of_at_most(50_000),
        pytest.raises(WriteError, match=r"memory-bucket: cannot be written: .*; free some space, or set THAW_CACHE"),
    ):
        mirrored(f"{bucket}/images")
    assert "images/large.png" not in contents(cache / "remote" / "memory-bucket" / "files")
    assert contents(mirrored(f"{bucket}/images")) == {**IMAGES, "large.png": b"x" * 100_000}


def test_too_little_room_is_told_before_anything_is_downloaded(
    bucket: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror.shutil, "disk_usage", lambda folder: SimpleNamespace(free=3))
    with downloads(monkeypatch) as names, pytest.raises(WriteError, match=r"needs .*, and .* are free; free some"):
        mirrored(f"{bucket}/images")
    assert not names


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionResetError(errno.ECONNRESET, "reset by peer"), "cannot be read .*reset by peer.*re-run to resume"),
        (TimeoutError(), r"cannot be read \(TimeoutError\)"),
        (RuntimeError("Server disconnected\nmore"), r"cannot be read \(RuntimeError: Server disconnected\);"),
        (PermissionError("Access Denied"), "access is refused .*check the credentials"),
        (RuntimeError("Unable to locate credentials"), "access is refused .*check the credentials"),
        (FileNotFoundError("The specified bucket does not exist"), "there is no such bucket, folder or file"),
    ],
)
def test_every_failure_of_a_connection_is_one_sentence(
    bucket: str, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    fsspec = pytest.importorskip("fsspec")

    def fail(*_: object, **__: object) -> None:
        raise error

    for name in ("info", "find", "get_file"):
        with monkeypatch.context() as patch, pytest.raises(DataError, match=f"^{bucket}/images: {message}"):
            patch.setattr(type(fsspec.filesystem("memory")), name, fail)
            mirrored(f"{bucket}/images")


def test_a_file_that_changes_while_it_is_downloaded_is_no_file(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setattr(
        type(fsspec.filesystem("memory")), "get_file", lambda self, name, to: Path(to).write_bytes(b"other")
    )
    with pytest.raises(DataError, match="changed while it was downloaded"):
        mirrored(f"{bucket}/images/ok/1.png")


def test_two_at_once_download_each_file_once(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put({f"many/{number}.png": b"%d" % number for number in range(30)})
    with downloads(monkeypatch) as names, ThreadPoolExecutor(2) as pool:
        copies = set(pool.map(mirrored, [f"{bucket}/many"] * 2))
    assert len(names) == 30 and len(contents(copies.pop())) == 30


@pytest.mark.parametrize(
    ("address", "hidden", "message"),
    [
        ("s3://bucket", "s3fs", r'needs s3fs: pip install "thaw-vision\[remote\]"'),
        ("gs://bucket", "gcsfs", "needs gcsfs: pip install gcsfs"),
        ("https://host/a", "aiohttp", r'needs aiohttp: pip install "thaw-vision\[remote\]"'),
        ("s3://bucket", "fsspec", r'needs fsspec: pip install "thaw-vision\[remote\]"'),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch, address: str, hidden: str, message: str
) -> None:
    pytest.importorskip("fsspec", reason="needs the extra remote")
    known = sys.modules["fsspec.registry"]._registry
    for protocol in [name for name in known if name != "memory"]:
        monkeypatch.delitem(known, protocol)
    for module in [name for name in sys.modules if name.startswith("fsspec.implementations.http")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, hidden, None)
    with pytest.raises(PackageError, match=f"^{address}: {message}$"):
        mirrored(address)


def test_an_unknown_protocol_is_one_sentence(cache: Path) -> None:
    pytest.importorskip("fsspec", reason="needs the extra remote")
    with pytest.raises(DataError, match=r"^abc://x: there is no protocol abc; known are s3, gs"):
        mirrored("abc://x")


def test_a_mirror_is_listed_and_cleared_with_the_cache(
    bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = mirrored(bucket)
    assert thaw(monkeypatch, "cache", "list") == 0
    assert "remote  4 files of memory://bucket" in capsys.readouterr().out
    assert thaw(monkeypatch, "cache", "clear", "features") == 0 and copy.exists()
    assert thaw(monkeypatch, "cache", "clear", "remote") == 0 and not copy.exists()
    assert "removed 1 entry" in capsys.readouterr().out
    assert contents(mirrored(f"{bucket}/images")) == IMAGES
