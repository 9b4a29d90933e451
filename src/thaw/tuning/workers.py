"""Several processes on one search: one at a time chooses the next trial, and each trial belongs to one of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from thaw.errors import WriteError
from thaw.locks import lock
from thaw.run_folder.search_folder import SearchFolder, TrialName

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
    if lock(stream.fileno()) is False:
        stream.close()
        return False

    def give_back() -> None:
        with suppress(OSError):
            file.unlink()
        stream.close()

    stack.callback(give_back)
    return True


def is_claimed(folder: SearchFolder, name: TrialName) -> bool:
    """Whether another process works on a trial."""
    file = folder.trials / f"{name}.lock"
    if not file.exists():
        return False
    with file.open("ab") as stream:
        return lock(stream.fileno()) is False


def _choosing_file(folder: SearchFolder) -> Path:
    """The process that has its lock chooses."""
    return folder.path / ".choosing"
