import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.studio.waiting import until
from thaw.studio import detached
from thaw.studio.detached import DetachedProcess, last_lines, terminate

WAITS = ["timeit", "-n", "1", "-r", "1", "import time; time.sleep(60)"]
"""A program that runs until it is ended."""


class Windows:
    """The calls of Windows that are made, on another system."""

    NEW_PROCESS_GROUP, NO_WINDOW = 0x200, 0x08000000

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[subprocess.Popen[bytes]] = []
        self.flags: list[int] = []
        start, rename = subprocess.Popen, Path.rename

        def popen(*words: Any, creationflags: int, **options: Any) -> subprocess.Popen[bytes]:
            self.flags.append(creationflags)
            self.started.append(start(*words, **options))
            return self.started[-1]

        def rename_closed(file: Path, target: Path) -> Path:
            """Fails as there, where a file that a process has as its standard input is open."""
            running = (process.pid for process in self.started if process.poll() is None)
            if any(Path(f"/proc/{process}/fd/0").samefile(file) for process in running):
                raise PermissionError(13, "The process cannot access the file because it is being used")
            return rename(file, target)

        monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", self.NEW_PROCESS_GROUP, raising=False)
        monkeypatch.setattr(subprocess, "CREATE_NO_WINDOW", self.NO_WINDOW, raising=False)
        monkeypatch.setattr(subprocess, "Popen", popen)
        monkeypatch.setattr(Path, "rename", rename_closed)
        monkeypatch.setattr(sys, "platform", "win32")


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Windows:
    return Windows(monkeypatch)


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at what a process has open")


@needs_proc
def test_on_windows_a_process_is_found_again_after_a_restart(tmp_path: Path, windows: Windows) -> None:
    file = tmp_path / "lock"
    first = DetachedProcess(file)
    assert not first.is_running
    number = first.start(WAITS, tmp_path / "log")
    restarted = DetachedProcess(file)
    assert first.is_running and restarted.is_running
    terminate(number)
    until(lambda: not first.is_running)
    assert not restarted.is_running


@needs_proc
def test_on_windows_a_process_does_not_belong_to_the_console_of_studio(tmp_path: Path, windows: Windows) -> None:
    process = DetachedProcess(tmp_path / "lock")
    process.start(["timeit", "-n", "1", "-r", "1", "import sys; print(repr(sys.stdin.read()))"], tmp_path / "log")
    until(lambda: not process.is_running)
    assert windows.flags == [Windows.NEW_PROCESS_GROUP | Windows.NO_WINDOW]
    assert last_lines(tmp_path / "log", 2)[0] == "''"


def test_a_process_that_has_ended_can_be_asked_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_: int) -> None:
        raise OSError(22, "The parameter is incorrect")

    monkeypatch.setattr(detached.os, "kill", kill)
    terminate(1)


def test_the_log_has_every_letter_whatever_encoding_the_system_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    process = DetachedProcess(tmp_path / "lock")
    process.start(["timeit", "-n", "1", "-r", "1", "print('Größe ひ')"], tmp_path / "log")
    until(lambda: not process.is_running)
    assert last_lines(tmp_path / "log", 2)[0] == "Größe ひ"
