"""A process that goes on whatever becomes of Studio, and of which is known whether it still runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from thaw.errors import WriteError
from thaw.locks import lock


class DetachedProcess:
    """At most one process of Python at a time.

    It holds a lock on a file from its start to its end, which the system releases however it ends; on Windows it has
    the file open. So it is known whether one runs, also after Studio was killed and started again.
    """

    def __init__(self, lock_file: Path) -> None:
        self._lock_file = lock_file
        # Whoever looks whether the lock is taken has it for a moment.
        self._guard = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it runs now."""
        with self._guard:
            if self._child and self._child.poll() is None:
                return True
            return _is_held(self._lock_file)

    def start(self, words: Sequence[str], log: Path) -> int:
        """Start `python -m` with some words, and return the id of the process; raises `WriteError` where it cannot.

        What it prints is in `log`.
        """
        try:
            with self._guard, log.open("wb") as output, self._lock_file.open("a+b") as held:
                lock(held.fileno())
                self._child = _detached([sys.executable, "-m", *words], output, held)
        except OSError as error:
            problem = f"a process cannot be started: {error.strerror or error}"
            raise WriteError(log, problem) from error
        return self._child.pid


def last_lines(log: Path, number: int) -> list[str]:
    """The last lines that a process has printed."""
    try:
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-number:]
    except OSError:
        return []


def terminate(process: int) -> None:
    """Ask a process to end; it may have ended."""
    # For one that has ended, Windows has other errors than `ProcessLookupError`.
    with suppress(OSError):
        os.kill(process, signal.SIGTERM)


def _is_held(file: Path) -> bool:
    """Whether a process that was started with a file holds it."""
    if sys.platform == "win32":
        try:
            # Nobody can rename a file that Python has open, not even to its own name.
            file.rename(file)
        except OSError as error:
            return isinstance(error, PermissionError)
        return False
    with suppress(OSError), file.open("ab") as stream:
        return lock(stream.fileno()) is False
    return False


def _detached(command: Sequence[str], output: BinaryIO, held: BinaryIO) -> subprocess.Popen[bytes]:
    """A process that signals to Studio do not reach, and that inherits the open lock file; what it prints is UTF-8."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}
    if sys.platform == "win32":
        # Only standard streams are inherited, and this empty one ends at once. A hidden console of its own, because
        # whoever closes the window of Studio ends every process of its console.
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        return subprocess.Popen(command, stdin=held, stdout=output, stderr=output, env=environment, creationflags=flags)
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        start_new_session=True,
        pass_fds=[held.fileno()],
    )
