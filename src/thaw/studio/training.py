"""Training as a process of its own: started, stopped and resumed here, and going on whatever becomes of Studio."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, BinaryIO

from pydantic import Field, TypeAdapter

from thaw import atomic
from thaw.errors import TrainingError, WriteError
from thaw.locks import lock
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder
from thaw.studio.project import Project


@dataclass(frozen=True)
class Started:
    """What was started last.

    Attributes:
        process: Its id.
        when: ISO 8601.
        earlier: Names of the runs that were there before.
        settings: What was set besides the recipe, as on the command line.
        images: How many labelled images it trains on.
        resumes: The name of the run that it resumes; empty for a new one.
        edits: The number of the last edit of labels.
    """

    process: Annotated[int, Field(ge=1)]
    when: str
    earlier: tuple[str, ...]
    settings: Mapping[str, str]
    images: int
    edits: int
    resumes: str = ""


_STARTED = TypeAdapter(Started)


class Training:
    """The runs of a project, of which one trains at a time; its methods can be called from any thread.

    A run holds a lock on a file from its start to its end, which the system releases however it ends. So it is known
    whether one trains, also after Studio was killed and started again.
    """

    def __init__(self, project: Project, recipe: Recipe) -> None:
        self._project = project
        self._recipe = recipe
        self._guard = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a run trains now."""
        with self._guard:
            return self._is_running()

    @property
    def started(self) -> Started | None:
        """What was started last; `None` if nothing was."""
        with suppress(OSError, ValueError):
            return _STARTED.validate_json(self._project.training_state.read_bytes())
        return None

    @property
    def run(self) -> RunFolder | None:
        """The run that was started last; `None` until it has a folder."""
        started = self.started
        if started is None:
            return None
        if started.resumes:
            return RunFolder.named(self._project.runs, started.resumes)
        new = [run for run in self._runs() if run.path.name not in started.earlier]
        return new[-1] if new else None

    def finished_runs(self) -> list[RunFolder]:
        """Every run of the project that has finished, the newest first."""
        return [run for run in self._runs() if run.is_finished]

    def _runs(self) -> list[RunFolder]:
        """Every run of the project, the newest first."""
        return RunFolder.newest_first(self._project.runs)

    def log(self) -> str:
        """What the latest run has said."""
        try:
            return self._project.training_log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def start(self, table: str, images: int, edits: int, settings: Mapping[str, str]) -> None:
        """Start a new run.

        Args:
            table: The labels of now as CSV.
            images: How many images have one.
            edits: The number of the last edit of labels.
            settings: Settings besides those of the recipe, as on the command line.

        Raises:
            TrainingError: A run trains already.
            WriteError: The disk is full.
        """
        with self._guard:
            self._check_free()
            atomic.write_text(self._project.training_table, table)
            recipe = self._project.path / "recipe.yaml"
            atomic.write_text(recipe, self._recipe.to_yaml())
            words = ["--recipe", str(recipe), *(f"--set={key}={value}" for key, value in settings.items())]
            earlier = tuple(run.path.name for run in self._runs())
            self._launch(words, lambda pid: Started(pid, _now(), earlier, settings, images, edits))

    def resume(self) -> None:
        """Resume the latest run; raises `TrainingError` if there is none that can be."""
        with self._guard:
            self._check_free()
            begun, started = self.run, self.started
            if begun is None or started is None or begun.is_finished:
                raise TrainingError("there is no run to resume; start a new one")
            self._launch(
                ["--resume"],
                lambda pid: Started(pid, _now(), (), started.settings, started.images, started.edits, begun.path.name),
            )

    def stop(self) -> None:
        """Ask the run to end, which keeps every epoch that was completed; raises `TrainingError` if none trains."""
        with self._guard:
            started = self.started
            if started is None or not self._is_running():
                raise TrainingError("no run trains")
            with suppress(ProcessLookupError):
                os.kill(started.process, signal.SIGTERM)

    def _check_free(self) -> None:
        if self._is_running():
            raise TrainingError("a run trains already; stop it, or wait until it has finished")

    def _launch(self, words: Sequence[str], describe: Callable[[int], Started]) -> None:
        table, runs = self._project.training_table, self._project.runs
        command = [sys.executable, "-m", "thaw", "train", str(table), "--runs", str(runs), *words]
        try:
            with self._project.training_log.open("wb") as log, self._project.training_lock.open("ab") as held:
                lock(held.fileno())
                self._child = _detached(command, log, held)
        except OSError as error:
            raise WriteError(self._project.path, f"training cannot be started: {error.strerror or error}") from error
        atomic.write_text(self._project.training_state, json.dumps(asdict(describe(self._child.pid))))

    def _is_running(self) -> bool:
        if self._child and self._child.poll() is None:
            return True
        if os.name != "posix":
            return False
        try:
            with self._project.training_lock.open("ab") as file:
                return lock(file.fileno()) is False
        except OSError:
            return False


def _detached(command: Sequence[str], log: BinaryIO, held: BinaryIO) -> subprocess.Popen[bytes]:
    """A process that signals to Studio do not reach, and that inherits the lock where files can be inherited."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if os.name != "posix":
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, creationflags=flags
        )
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,
        pass_fds=[held.fileno()],
    )


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
