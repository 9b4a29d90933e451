"""Storage of Google and of Azure, served on loopback where their packages are installed, which no extra of Thaw names.

pip install gcsfs gcp-storage-emulator adlfs; npm install --global azurite
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.remote.storages import contents, downloads
from thaw.errors import DataError
from thaw.remote import mirrored

SECONDS = 60.0
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key of every Azurite, which is no secret."""
IMAGES = {"steel/images/ok/1.png": b"one", "steel/images/not ok/ä 2.png": b"two", "steel/images/.hidden": b"hidden"}


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # For a protocol that the emulator does not speak; read at the import.
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    gcsfs = pytest.importorskip("gcsfs", reason="needs gcsfs")
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="needs gcp-storage-emulator")
    port = free_port()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="steel")
    server.start()
    gcsfs.GCSFileSystem.clear_instance_cache()
    yield gcsfs.GCSFileSystem(token="anon")
    server.stop()


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    adlfs = pytest.importorskip("adlfs", reason="needs adlfs")
    if (program := shutil.which("azurite-blob")) is None:
        pytest.skip("needs azurite")
    port = free_port()
    given = f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;AccountName=devstoreaccount1;AccountKey={KEY}"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"DefaultEndpointsProtocol=http;{given}")
    options = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(tmp_path / "azurite")]
    quiet = ["--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    with subprocess.Popen([program, *options, *quiet], stdout=subprocess.DEVNULL) as server:
        wait_for(port)
        # One of an earlier test knows another port.
        adlfs.AzureBlobFileSystem.clear_instance_cache()
        system = adlfs.AzureBlobFileSystem()
        system.mkdir("steel")
        yield system
        server.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(port: int) -> None:
    until = time.monotonic() + SECONDS
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("storage", "scheme"), [("google", "gs"), ("azure", "az"), ("azure", "abfs")])
def test_a_bucket_is_mirrored_and_again_only_where_it_changed(
    storage: str, scheme: str, request: pytest.FixtureRequest, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = request.getfixturevalue(storage)
    for name, content in IMAGES.items():
        system.pipe(name, content)
    with downloads(monkeypatch) as names:
        copy = mirrored(f"{scheme}://steel/images")
        assert contents(copy) == {"ok/1.png": b"one", "not ok/ä 2.png": b"two"}
        names.clear()
        mirrored(f"{scheme}://steel/images")
        assert not names
        system.pipe("steel/images/ok/1.png", b"ONE")
        system.rm("steel/images/not ok/ä 2.png")
        assert contents(mirrored(f"{scheme}://steel/images")) == {"ok/1.png": b"ONE"}
        assert names == ["steel/images/ok/1.png"]
    for place in (f"{scheme}://steel/nothing", f"{scheme}://no-such-bucket/images"):
        with pytest.raises(DataError, match=f"^{place}: there is no such bucket, folder or file$"):
            mirrored(place)
