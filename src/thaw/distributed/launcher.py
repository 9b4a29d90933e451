"""What started this process together with others: `torchrun`, a Ray cluster, or what sets the same variables."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ENDED = 1
"""Exit code where another process, or what started this one, has ended; all are restarted then."""

LAUNCH, RESTARTS = "THAW_LAUNCH", "THAW_RESTARTS"
"""Environment variables of processes on a Ray cluster: the name of their launch, and how often they were restarted."""

_STDIN = 0
_REFUSED = "refused"
"""File among those of torchrun: the processes failed with an error of the user, which no restart would change."""


@dataclass(frozen=True)
class Launcher:
    """What started the processes.

    Attributes:
        name: What a run remembers as its launch; the same after a restart, and empty where that is not known.
        restarts: How often the processes were restarted.
        keeps_store: Whether the store that the processes meet at outlives the main process.
        error_file: Where torchrun looks for the cause of a failure.
        is_cluster: Whether a Ray cluster did, with a pipe as standard input whose end is that of the launch.
    """

    name: str = ""
    restarts: int = 0
    keeps_store: bool = False
    error_file: Path | None = None
    is_cluster: bool = False

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Launcher:
        """The launcher that an environment tells of."""
        if LAUNCH in environment:
            return cls(environment[LAUNCH], int(environment.get(RESTARTS, "0")), is_cluster=True)
        file = environment.get("TORCHELASTIC_ERROR_FILE")
        error_file = Path(file) if file else None
        # The user gives it, or else it is what is unique to a launch on this machine.
        name = environment.get("TORCHELASTIC_RUN_ID", "none")
        return cls(
            name if name != "none" else str(_files_of(error_file) or ""),
            int(environment.get("TORCHELASTIC_RESTART_COUNT", "0")),
            environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            error_file,
        )

    def refuse(self, sentence: str) -> None:
        """Give torchrun a sentence as the cause, which it prints instead of advice for programmers, now and later.

        Of several processes on this machine, the first one is heard.
        """
        folder = _files_of(self.error_file)
        if folder is None:
            return
        with suppress(OSError), (folder / _REFUSED).open("x", encoding="utf-8") as file:
            file.write(sentence)
        self._tell_torchrun(sentence)

    def is_refused(self) -> bool:
        """Whether the processes were restarted after an error that a restart does not change; tells torchrun again."""
        folder = _files_of(self.error_file)
        if folder is None or not (folder / _REFUSED).exists():
            return False
        self._tell_torchrun((folder / _REFUSED).read_text(encoding="utf-8"))
        return True

    def end_with_launch(self) -> None:
        """End this process at once when the worker of a cluster that started it is gone."""
        if self.is_cluster:
            threading.Thread(target=_end_after_input, daemon=True, name="end with launch").start()

    def _tell_torchrun(self, sentence: str) -> None:
        if self.error_file:
            about = {"py_callstack": sentence, "timestamp": str(int(time.time()))}
            with suppress(OSError):
                text = json.dumps({"message": {"message": sentence, "extraInfo": about}})
                self.error_file.write_text(text, encoding="utf-8")


def launcher() -> Launcher:
    """What started this process."""
    return Launcher.of(os.environ)


def _files_of(error_file: Path | None) -> Path | None:
    """The folder that torchrun made for the files of one launch on this machine; it is the same after a restart."""
    return error_file.parents[2] if error_file else None


def _end_after_input() -> None:
    # Not through `sys.stdin`, whose lock would be held when Python ends.
    with suppress(OSError):
        while os.read(_STDIN, 1):
            pass
    os._exit(ENDED)
