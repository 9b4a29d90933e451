"""Real servers on loopback: one of web pages, and one that speaks the protocol of S3."""

from __future__ import annotations

import os
import socket
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.remote.storages import contents, downloads
from thaw.errors import DataError
from thaw.remote import mirrored, mirrored_files, shown
from thaw.remote.storage import Storage


def on_s3(test: Callable[..., None]) -> Callable[..., None]:
    """A test that starts a server of S3, which takes seconds."""
    return pytest.mark.slow(pytest.mark.ci(test))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class Locked(Quiet):
    """Answers only those who know the password."""

    def send_head(self) -> Any:
        if self.headers["Authorization"] == f"Basic {b64encode(b'me:secret').decode()}":
            return super().send_head()
        return self.send_error(HTTPStatus.UNAUTHORIZED)


@pytest.fixture
def pages(cache: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server, and the folder that it shows."""
    pytest.importorskip("aiohttp", reason="needs the extra remote")
    folder = tmp_path / "pages"
    (folder / "images" / "not ok").mkdir(parents=True)
    (folder / "images" / "ok").mkdir()
    (folder / "images" / "ok" / "1.png").write_bytes(b"one")
    (folder / "images" / "not ok" / "ä 2.png").write_bytes(b"two")
    with served(folder, Quiet) as address:
        yield address, folder


@contextmanager
def served(folder: Path, handler: type[Quiet]) -> Iterator[str]:
    """The address of a server that shows a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_the_folders_of_a_web_server_are_mirrored(pages: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    address, folder = pages
    with downloads(monkeypatch) as names:
        copy = mirrored(f"{address}/images")
        assert contents(copy) == {"ok/1.png": b"one", "not ok/ä 2.png": b"two"}
        names.clear()
        mirrored(f"{address}/images")
        assert not names
        (folder / "images" / "ok" / "1.png").write_bytes(b"other")
        assert contents(mirrored(f"{address}/images"))["ok/1.png"] == b"other" and len(names) == 1
    assert mirrored(f"{address}/images/ok/1.png").read_bytes() == b"other"
    with pytest.raises(DataError, match="there is no such"):
        mirrored(f"{address}/nothing")


def test_a_folder_of_a_web_server_may_have_a_dot_in_its_name_or_be_the_whole_server(pages: tuple[str, Path]) -> None:
    address, folder = pages
    (folder / "v1.2").mkdir()
    (folder / "v1.2" / "1.png").write_bytes(b"one")
    (folder / "labels.csv").write_bytes(b"path,label\n")
    assert contents(mirrored(f"{address}/v1.2")) == {"1.png": b"one"}
    assert mirrored(f"{address}/labels.csv").read_bytes() == b"path,label\n"
    assert "v1.2/1.png" in contents(mirrored(address))


def test_a_password_opens_a_server_and_is_written_nowhere(pages: tuple[str, Path], cache: Path) -> None:
    with served(pages[1], Locked) as server:
        address = server.replace("//", "//me:secret@")
        copy = mirrored(f"{address}/images")
        assert contents(copy) == {"ok/1.png": b"one", "not ok/ä 2.png": b"two"}
        assert shown(copy) == f"{server}/images".replace("//", "//me@")
        (copy / "ok" / "1.png").unlink()
        mirrored_files([copy / "ok" / "1.png"])
        assert (copy / "ok" / "1.png").is_file()
        assert not any("secret" in str(file) or "secret" in file.read_text("utf-8") for file in files_below(cache))
        with pytest.raises(DataError, match=r"//me@127.*/images: access is refused") as caught:
            mirrored(f"{address}/images".replace("secret", "wrong"))
        assert "wrong" not in str(caught.value)


def files_below(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def test_a_server_that_does_not_answer_is_one_sentence(cache: Path) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra remote")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/images"
    with pytest.raises(DataError, match=f"^{address}: cannot be read .*re-run to resume$"):
        mirrored(address)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a bucket with two images."""
    server = pytest.importorskip("moto.server", reason="needs moto").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    s3fs = pytest.importorskip("s3fs", reason="needs the extra remote")
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            patch.setenv(name, value)
        system = s3fs.S3FileSystem()
        system.mkdir("steel")
        system.pipe({"steel/images/ok/1.png": b"one", "steel/images/bad/2.png": b"two", "steel/images/empty/": b""})
        yield "s3://steel"
        server.stop()


@on_s3
def test_a_bucket_is_mirrored_and_again_only_where_it_changed(
    s3: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    with downloads(monkeypatch) as names:
        copy = mirrored(f"{s3}/images")
        assert contents(copy) == {"ok/1.png": b"one", "bad/2.png": b"two"}
        names.clear()
        s3fs.S3FileSystem().pipe("steel/images/ok/1.png", b"ONE")
        s3fs.S3FileSystem().rm("steel/images/bad/2.png")
        assert contents(mirrored(f"{s3}/images")) == {"ok/1.png": b"ONE"} and names == ["steel/images/ok/1.png"]


@on_s3
@pytest.mark.parametrize("place", ["s3://no-such-bucket/images", "s3://steel/no-such-folder"])
def test_what_is_not_there_is_one_sentence(s3: str, cache: Path, place: str) -> None:
    with pytest.raises(DataError, match=f"^{place}: there is no such bucket, folder or file$"):
        mirrored(place)


@on_s3
def test_without_credentials_it_is_one_sentence(s3: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    for name in [name for name in os.environ if name.startswith("AWS_") and "KEY" in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DataError, match=r"access is refused \(.*\); check the credentials"):
        Storage.at(s3).is_folder()
        mirrored(s3)
