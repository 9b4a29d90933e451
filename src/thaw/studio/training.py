"""Runs as processes of their own, one after the other: queued, started, stopped and resumed here."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field, TypeAdapter

from thaw import atomic
from thaw.errors import ThawError, TrainingError, first_line
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder
from thaw.studio.detached import DetachedProcess, last_lines, terminate
from thaw.studio.journal import Journal
from thaw.studio.planned_run import PlannedRun
from thaw.studio.project import Project, QueuedFiles
from thaw.studio.runs_of_jobs import RunsOfJobs
from thaw.studio.training_queue import Begun, Job, Request, TrainingQueue
from thaw.writing import explained

_PAUSE = 1.0
"""Seconds between two looks whether the next run can begin."""
_REMEMBERED = 5
"""Jobs whose failure is told."""
_LOG = logging.getLogger("thaw.studio")


@dataclass(frozen=True)
class Labelled:
    """The labels of a moment.

    Attributes:
        table: As CSV.
        images: How many images have one.
        edits: The number of the last edit.
        digests: By path, the SHA-256 of each image as it was labelled.
    """

    table: str
    images: int
    edits: int
    digests: Mapping[str, str]


@dataclass(frozen=True)
class _Started:
    """The process that was started last: of which job, and its id."""

    job: int
    process: Annotated[int, Field(ge=1)]


_STARTED = TypeAdapter(_Started)


class Training:
    """The runs of a project, of which one trains at a time; its methods can be called from any thread.

    Everything is written down before it is done: a job before it waits, and that it begins before its process is
    started. Where Studio is killed in between, the process is started when Studio is.

    Attributes:
        planned: The plan of the next run.
        problem: Why the next job cannot begin now, such as a full disk; empty if it can.
        waits_for: Whether something else computes that the next job is not to disturb.
    """

    def __init__(
        self,
        project: Project,
        recipe: Recipe,
        actions: Journal,
        replaced: Callable[[QueuedFiles], str] = lambda files: "",
    ) -> None:
        """Read which runs wait.

        Args:
            project: Where everything is.
            recipe: Where runs start from.
            actions: Where what is done is written down.
            replaced: What is wrong with the images of a queued run, if they are not what was labelled.

        Raises:
            DataError: What is written down is damaged.
        """
        self._project, self._recipe, self._replaced = project, recipe, replaced
        self._guard, self._advancing = threading.Lock(), threading.Lock()
        self._queue = TrainingQueue(actions)
        self._runs = RunsOfJobs(project.runs, self._queue)
        self._process = DetachedProcess(project.training_lock)
        self._stops = threading.Event()
        self.planned = PlannedRun(project, recipe)
        self.problem = ""
        self.waits_for: Callable[[], bool] = lambda: False

    def run_queue(self) -> None:
        """Begin the runs that wait, one after the other, in a thread, until `close`."""
        threading.Thread(target=self._run_queue, name="thaw-studio-queue", daemon=True).start()

    def close(self) -> None:
        """Begin no further run; the present one goes on."""
        self._stops.set()

    @property
    def is_running(self) -> bool:
        """Whether a run trains now."""
        return self._process.is_running

    @property
    def is_beginning(self) -> bool:
        """Whether the latest job is begun, but its process not started yet."""
        return self.latest is not None and not self._was_started(self.latest)

    @property
    def latest(self) -> Begun | None:
        """What was begun last; `None` if nothing was."""
        return self._queue.begun[-1] if self._queue.begun else None

    @property
    def run(self) -> RunFolder | None:
        """The run that was begun last; `None` until it has a folder."""
        return self._runs.of(self.latest) if self.latest else None

    @property
    def waiting(self) -> tuple[Job, ...]:
        """The jobs that wait, the next one first."""
        return self._queue.waiting

    @property
    def refusal(self) -> str:
        """Why the last job could not be begun; empty if it was."""
        return self._queue.refused.reason if self._queue.refused else ""

    @property
    def resumable(self) -> RunFolder | None:
        """The newest run that has not finished, if it can be resumed now."""
        unfinished = None if self.is_running else self._runs.unfinished()
        return unfinished if unfinished and self._runs.beginning_of(unfinished) else None

    def finished_runs(self) -> list[RunFolder]:
        """Every run of the project that has finished, the newest first."""
        return [run for run in self._runs.newest_first() if run.is_finished]

    def log(self, begun: Begun, lines: int) -> list[str]:
        """The last lines that the process of a job has printed."""
        return last_lines(self._project.queued(begun.job.number).log, lines)

    @property
    def failed(self) -> list[Begun]:
        """Those of the last jobs whose process ended before they had a folder, the oldest first."""
        ended = self._queue.begun[-_REMEMBERED:]
        if self.is_running or self.is_beginning:
            ended = ended[:-1]
        return [begun for begun in ended if self._runs.of(begun) is None]

    def start(self, labelled: Labelled, settings: Mapping[str, str], with_plan: bool = False) -> None:
        """Put a new run into the queue, and begin it if nothing else trains or waits.

        Args:
            labelled: The labels of now.
            settings: Settings besides those of the recipe, as on the command line.
            with_plan: Train as `planned`, which is taken for it.

        Raises:
            TrainingError: The plan is not of these labels and settings.
            WriteError: The disk is full; nothing is begun.
        """
        with self._guard:
            number = self._queue.next_number
            if with_plan and not self.planned.fits(labelled.table, settings):
                raise TrainingError("the plan is not of the labels and settings of now; plan again")
            files = self._project.queued(number)
            files.make()
            atomic.write_text(files.table, labelled.table)
            atomic.write_checked(files.digests, dict(labelled.digests))
            atomic.write_text(files.recipe, self._recipe.to_yaml())
            if with_plan:
                self.planned.move(files.run)
            self._queue.add(Request(settings, labelled.images, labelled.edits, is_planned=with_plan))
        self.advance()

    def resume(self) -> None:
        """Put the newest unfinished run into the queue; raises `TrainingError` if there is none that can be resumed."""
        with self._guard:
            run = self.resumable
            begun = self._runs.beginning_of(run) if run else None
            if run is None or begun is None:
                raise TrainingError("there is no run to resume; start a new one")
            if any(job.request.resumes == run.path.name for job in self.waiting):
                raise TrainingError(f"{run.path.name} is in the queue already")
            files = self._project.queued(self._queue.next_number)
            files.make()
            atomic.write_bytes(files.table, self._project.queued(begun.job.number).table.read_bytes())
            self._queue.add(replace(begun.job.request, resumes=run.path.name, is_planned=False))
        self.advance()

    def cancel(self, number: int) -> None:
        """Take a run out of the queue; raises `TrainingError` if it does not wait."""
        with self._guard:
            self._queue.cancel(number)
            shutil.rmtree(self._project.queued(number).folder, ignore_errors=True)

    def plan(self, labelled: Labelled, settings: Mapping[str, str]) -> None:
        """Plan the next run; raises `TrainingError` where a run trains or waits, which would spoil the measurements."""
        with self._guard:
            if self.is_running or self.waiting or self.waits_for():
                raise TrainingError("a run trains, waits or is updated; plan when it has finished")
            # `thaw train` finds the splits of earlier runs by the place of the table.
            atomic.write_text(self._project.training_table, labelled.table)
            self.planned.start(labelled.table, settings, labelled.edits)

    def stop(self) -> None:
        """Ask the run to end, which keeps every epoch that was completed; raises `TrainingError` if none trains."""
        with self._guard:
            started = self._started()
            if started is None or not self.is_running:
                raise TrainingError("no run trains")
            terminate(started.process)

    def advance(self) -> None:
        """Begin the next job, if no run trains and none is being planned; sets `problem` where it cannot."""
        with self._advancing:
            try:
                while self._begin_or_refuse():
                    pass
            except ThawError as error:
                self.problem = first_line(error)

    def _run_queue(self) -> None:
        while not self._stops.is_set():
            try:
                self.advance()
            except Exception:
                _LOG.exception("the queue failed")
            self._stops.wait(_PAUSE)

    def _begin_or_refuse(self) -> bool:
        """Begin the next job, or refuse it, and then return true: another may follow."""
        job = None if self._is_occupied or self.is_beginning else next(iter(self.waiting), None)
        # Looking at its images takes a while, in which it can be cancelled and a run be stopped.
        reason = self._obstacle(job) if job else ""
        with self._guard:
            if self._is_occupied:
                return False
            if job in self.waiting and reason:
                self._queue.refuse(job, reason)
                return True
            begun = self.latest if self.is_beginning else None
            if job in self.waiting:
                begun = self._queue.begin(job, next(iter(self._runs.newest_first()), None))
            if begun:
                self._launch(begun)
            self.problem = ""
            return False

    @property
    def _is_occupied(self) -> bool:
        """Whether no job can begin now."""
        return self.is_running or self.planned.is_running or self.waits_for()

    def _obstacle(self, job: Job) -> str:
        """Why a job cannot be begun; empty if it can."""
        name, files = job.request.resumes, self._project.queued(job.number)
        if not files.table.is_file():
            return f"{files.table} is missing; start the run again"
        if not name:
            return self._replaced(files)
        unfinished = self._runs.unfinished()
        is_newest = unfinished is not None and unfinished.path.name == name
        return "" if is_newest else f"{name} cannot be resumed any more: it has finished, or a later run has not"

    def _launch(self, begun: Begun) -> None:
        project, request, files = self._project, begun.job.request, self._project.queued(begun.job.number)
        with explained(files.table):
            atomic.write_bytes(project.training_table, files.table.read_bytes())
        if request.is_planned and files.run.is_dir():
            RunFolder.adopt(project.runs, files.run)
        words = ["thaw", "train", str(project.training_table), "--runs", str(project.runs)]
        if request.resumes or request.is_planned:
            words += ["--resume"]
        else:
            words += ["--recipe", str(files.recipe)]
            words += [f"--set={key}={value}" for key, value in request.settings.items()]
        process = self._process.start(words, files.log)
        atomic.write_text(project.training_state, json.dumps({"job": begun.job.number, "process": process}))

    def _started(self) -> _Started | None:
        with suppress(OSError, ValueError):
            return _STARTED.validate_json(self._project.training_state.read_bytes())
        return None

    def _was_started(self, begun: Begun) -> bool:
        """Whether the process of a job was started, also if Studio was killed before that was written down."""
        started = self._started()
        if started and started.job == begun.job.number:
            return True
        run, request = self._runs.of(begun), begun.job.request
        return run is not None and (run.is_finished or not (request.is_planned or request.resumes))
