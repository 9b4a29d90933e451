"""Several processes on one search: one at a time chooses the next trial, and each trial belongs to one of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from thaw.clock import Clock
from thaw.errors import WriteError
from thaw.locks import lock
from thaw.run_folder.search_folder import SearchFolder
from thaw.run_folder.trial_record import TrialName

_POLL = 0.05


def check_locks(folder: SearchFolder) -> None:
    """Raise `WriteError` where there are no file locks, without which two processes would take the same trial."""
    with _choosing_file(folder).open("ab") as stream:
        if lock(stream.fileno()) is None:
            raise WriteError(
                folder.path,
                "has no file locks, as on Windows and some network drives, without which only one process can work on "
                "a search; use a drive that has them",
            )


@contextmanager
def choosing(folder: SearchFolder) -> Iterator[None]:
    """Within the block no other process chooses a trial of this search."""
    with _choosing_file(folder).open("ab") as stream:
        while lock(stream.fileno()) is False:
            time.sleep(_POLL)
        yield


def claimed(folder: SearchFolder, name: TrialName, stack: ExitStack) -> bool:
    """Whether a trial belongs to this process from now until the stack ends; another one may have it already.

    The system gives it back when the process ends, however it ends.
    """
    file = folder.trials / f"{name}.lock"
    stream = file.open("ab")
    if lock(stream.fileno(), file) is False:
        stream.close()
        return False

    def give_back() -> None:
        with suppress(OSError):
            file.unlink()
        stream.close()

    stack.callback(give_back)
    return True


@contextmanager
def conducted(folder: SearchFolder, clock: Clock) -> Iterator[None]:
    """Within the block, processes that join read by `seconds_so_far` how long the search has taken."""
    with _clock_file(folder).open("a+", encoding="utf-8") as stream:
        # One that joins has it for an instant.
        while lock(stream.fileno()) is False:
            time.sleep(_POLL)
        stream.truncate(0)
        stream.write(str(clock.elapsed))
        stream.flush()
        yield


def seconds_so_far(folder: SearchFolder) -> float:
    """How long a search has taken by now, by the clock of the process that conducts it; 0 where none does."""
    file = _clock_file(folder)
    if not file.is_file():
        return 0.0
    with file.open("r+", encoding="utf-8") as stream:
        if lock(stream.fileno()) is not False:
            return 0.0
        began = stream.read()
        return float(began) + max(0.0, time.time() - file.stat().st_mtime) if began else 0.0


def _clock_file(folder: SearchFolder) -> Path:
    """What a search had taken when the process that has its lock began to conduct it."""
    return folder.path / ".clock"


def _choosing_file(folder: SearchFolder) -> Path:
    """The process that has its lock chooses."""
    return folder.path / ".choosing"
