"""A process joins a cluster at an address; whatever is wrong with the address or Ray is one sentence."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cli.running import thaw as command
from thaw.cluster import connected, connection
from thaw.errors import ClusterError, PackageError
from thaw.run_folder import RunFolder

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Ray clusters are for Linux")
slow = pytest.mark.slow


@pytest.mark.parametrize("address", ["here", "ray://host:10001", "host:port", "auto"])
def test_an_address_of_another_form_is_refused(
    address: str, trained: RunFolder, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "predict", trained.path, images, "--cluster", address) == 2
    assert f"--cluster {address}: write local, or HOST:PORT" in capsys.readouterr().err


@pytest.mark.parametrize("port", [0, 99999])
def test_a_port_that_cannot_be_is_refused(
    port: int, trained: RunFolder, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "predict", trained.path, images, "--cluster", f"127.0.0.1:{port}") == 2
    assert f"--cluster 127.0.0.1:{port}: there is no port {port}" in capsys.readouterr().err


def test_an_address_where_nothing_listens_is_one_sentence(
    trained: RunFolder,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    out = tmp_path / "table.csv"
    assert command(monkeypatch, "predict", trained.path, images, "--out", out, "--cluster", address) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"thaw: --cluster {address}: cannot be reached (")
    assert not list(tmp_path.iterdir())


@slow
@on_linux
def test_something_that_is_not_ray_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    monkeypatch.setattr(connection, "ANSWERS_WITHIN", 4.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ClusterError, match="no Ray cluster answers there within 4 s"), connected(address):
            pass


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(PackageError, match=r'--cluster needs ray: pip install "thaw-vision\[ray\]"'),
        connected("local"),
    ):
        pass


@pytest.mark.parametrize("address", ["local", "127.0.0.1"])
def test_a_connection_that_the_process_has_already_is_refused_and_stays(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def init(*_: object, **__: object) -> None:
        raise RuntimeError("Maybe you called ray.init twice by accident?")

    connected_ray = SimpleNamespace(is_initialized=lambda: True, init=init, shutdown=lambda: calls.append("shutdown"))
    monkeypatch.setitem(sys.modules, "ray", connected_ray)
    before = dict(os.environ)
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = address if address == "local" else f"{address}:{server.getsockname()[1]}"
        said = "this process is connected to Ray already; call ray.shutdown\\(\\) first"
        with pytest.raises(ClusterError, match=said), connected(where):
            pass
    assert not calls and dict(os.environ) == before
