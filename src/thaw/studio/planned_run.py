"""The plan of a run before it is started, made by a process of its own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from thaw import atomic
from thaw.errors import TrainingError
from thaw.in_use import when_closed
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder
from thaw.studio.detached import DetachedProcess, last_lines, terminate
from thaw.studio.project import Project
from thaw.writing import explained


@dataclass(frozen=True)
class PlanRequest:
    """What is planned.

    Attributes:
        process: The id of the process.
        settings: What is set besides the recipe, as on the command line.
        edits: The number of the last edit of labels.
        recipe: Where the run starts from, YAML.
    """

    process: Annotated[int, Field(ge=1)]
    settings: Mapping[str, str]
    edits: int
    recipe: str


_REQUEST = TypeAdapter(PlanRequest)


class PlannedRun:
    """At most one run that is begun up to its plan, in a folder of its own; it is kept until there is another."""

    def __init__(self, project: Project, recipe: Recipe) -> None:
        self._project, self._recipe = project, recipe
        self._process = DetachedProcess(project.plan_lock)

    @property
    def is_running(self) -> bool:
        """Whether the plan is being made."""
        return self._process.is_running

    @property
    def request(self) -> PlanRequest | None:
        """What is planned, or was planned last; `None` if nothing was."""
        with suppress(OSError, ValueError):
            return _REQUEST.validate_json(self._project.plan_request.read_bytes())
        return None

    @property
    def run(self) -> RunFolder | None:
        """The run up to its plan; `None` until there is one."""
        run = RunFolder(self._project.planned)
        return run if run.plan.is_file() and not self.is_running else None

    def log(self, lines: int) -> list[str]:
        """The last lines that the process has printed."""
        return last_lines(self._project.plan_log, lines)

    def start(self, table: str, settings: Mapping[str, str], edits: int) -> None:
        """Plan a run, instead of the one before.

        Args:
            table: The labels of now, CSV, which are in the table to train on.
            settings: Settings besides those of the recipe, as on the command line.
            edits: The number of the last edit of labels.

        Raises:
            TrainingError: One is being planned.
            WriteError: The disk is full.
        """
        if self.is_running:
            raise TrainingError("a run is being planned already")
        project = self._project
        self._forget()
        atomic.write_text(project.planned_table, table)
        atomic.write_text(project.planned_recipe, self._recipe.to_yaml())
        words = ["thaw.cli.plan_run", *map(str, (project.training_table, project.runs, project.planned))]
        words += ["--recipe", str(project.planned_recipe), *(f"--set={key}={value}" for key, value in settings.items())]
        request = PlanRequest(self._process.start(words, project.plan_log), settings, edits, self._recipe.to_yaml())
        atomic.write_text(project.plan_request, json.dumps(asdict(request)))

    def cancel(self) -> None:
        """End the process, if it runs, and forget the plan."""
        if self.is_running and (request := self.request):
            terminate(request.process)
        when_closed(lambda: self._project.plan_request.unlink(missing_ok=True))

    def fits(self, table: str, settings: Mapping[str, str]) -> bool:
        """Whether there is a plan of these labels and settings."""
        request = self.request
        if self.run is None or request is None:
            return False
        with suppress(OSError):
            is_same = self._project.planned_table.read_text(encoding="utf-8") == table
            return is_same and request.settings == settings and request.recipe == self._recipe.to_yaml()
        return False

    def move(self, folder: Path) -> None:
        """Move the run to where it is started from; there is no plan any more."""
        with explained(folder):
            shutil.rmtree(folder, ignore_errors=True)
            when_closed(lambda: os.replace(self._project.planned, folder))
        self._forget()

    def _forget(self) -> None:
        with explained(self._project.plan):
            when_closed(lambda: self._project.plan_request.unlink(missing_ok=True))
            shutil.rmtree(self._project.planned, ignore_errors=True)
            self._project.plan.mkdir(exist_ok=True)
