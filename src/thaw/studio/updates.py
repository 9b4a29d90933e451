"""A run that learns the labels of now by `thaw update`, as a process that goes on whatever becomes of Studio."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from thaw import atomic
from thaw.errors import DataError, TrainingError
from thaw.evaluation.class_changes import ClassChange
from thaw.run_folder import RunFolder
from thaw.studio.detached import DetachedProcess, last_lines
from thaw.studio.project import Project

LOG_LINES = 6


class Updates:
    """The updates of the runs of a project, one at a time; its methods can be called from any thread."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._guard = threading.Lock()
        self._process = DetachedProcess(project.update_lock)

    @property
    def is_running(self) -> bool:
        """Whether a run is updated now."""
        return self._process.is_running

    def start(self, run: RunFolder, table: str) -> None:
        """Update a run with the labels of now, as CSV; it leaves out the images that it knows.

        Raises:
            TrainingError: A run is updated already.
            WriteError: The disk is full.
        """
        with self._guard:
            if self.is_running:
                raise TrainingError("a run is updated already; wait until it has ended")
            atomic.write_text(self._project.update_table, table)
            atomic.write_text(self._project.update_state, json.dumps({"run": run.path.name}))
            words = ["thaw", "update", str(run.path), str(self._project.update_table)]
            self._process.start(words, self._project.update_log)

    def progress(self) -> dict[str, Any]:
        """What became of the update that was started last, as plain values.

        state: `none`, `running`, `kept`, `not kept` or `failed`, for the reason in the last line of the log.
        """
        run = self._started()
        if run is None:
            return {"state": "none"}
        found = {"run": run, "log": last_lines(self._project.update_log, LOG_LINES), "old": [], "new": []}
        if self.is_running:
            return {**found, "state": "running"}
        updated = self._written_since(self._project.update_state)
        with suppress(DataError):
            update = updated.read_update() if updated else None
            if updated and update and update.kept is not None and update.kept == updated.is_finished:
                changes = {"old": _plain(update.old), "new": _plain(update.new)}
                return {
                    **found,
                    **changes,
                    "updated": updated.path.name,
                    "state": "kept" if update.kept else "not kept",
                }
        return {**found, "state": "failed"}

    def _written_since(self, file: Path) -> RunFolder | None:
        """The newest run whose update.json was written after a file."""
        when = file.stat().st_mtime_ns
        runs = (run for run in RunFolder.newest_first(self._project.runs) if run.update.is_file())
        return next((run for run in runs if run.update.stat().st_mtime_ns > when), None)

    def _started(self) -> str | None:
        """The name of the run whose update was started last; `None` where the file of it is absent or damaged."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            name = str(json.loads(self._project.update_state.read_bytes())["run"])
            if RunFolder.is_name(name):
                return name
        return None


def _plain(changes: Sequence[ClassChange]) -> list[dict[str, Any]]:
    """Changes as plain values, with whether each class falls."""
    return [{**asdict(change), "falls": change.falls} for change in changes]
