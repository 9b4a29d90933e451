import re
import socket
import sys
from pathlib import Path

import pytest
import uvicorn

from thaw.cli import main
from thaw.studio import server

QUICK = ("--set", "backbone=starter", "--no-browser")


def thaw_studio(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The exit code of the command."""
    monkeypatch.setattr(sys, "argv", ["thaw", "studio", *map(str, words)])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[uvicorn.Server]:
    """The servers that would have run."""
    found: list[uvicorn.Server] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: found.append(self))
    return found


def test_the_address_with_its_token_is_printed(
    served: list[uvicorn.Server],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert thaw_studio(monkeypatch, images, "--project", tmp_path / "studio", *QUICK) == 0
    assert re.search(r"Studio: http://127\.0\.0\.1:\d+/\?token=[\w-]{43} \(Ctrl\+C to stop\)", capsys.readouterr().out)
    assert len(served) == 1


def test_the_browser_is_opened_unless_it_is_not_wanted(
    served: list[uvicorn.Server], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(server.webbrowser, "open", opened.append)
    assert thaw_studio(monkeypatch, images, "--project", tmp_path / "one", *QUICK) == 0 and not opened
    assert thaw_studio(monkeypatch, images, "--project", tmp_path / "two", *QUICK[:2]) == 0 and len(opened) == 1


def test_a_port_that_is_taken_is_said(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert thaw_studio(monkeypatch, images, "--project", tmp_path / "studio", "--port", port, *QUICK) == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err


def test_a_first_start_in_an_empty_folder_needs_no_images(
    served: list[uvicorn.Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert thaw_studio(monkeypatch, *QUICK) == 0
    assert len(served) == 2 and (tmp_path / "studio" / "project.json").is_file()
