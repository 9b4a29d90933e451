"""The runs that wait, and those that were begun: what the lines of a journal say about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from thaw.errors import DataError, TrainingError
from thaw.run_folder import RunFolder
from thaw.studio.journal import Journal, Line

QUEUE, BEGIN, CANCEL, REFUSE = "queue training", "train", "cancel training", "refuse training"


@dataclass(frozen=True)
class Request:
    """A run that is asked for.

    Attributes:
        settings: What is set besides the recipe, as on the command line.
        images: How many labelled images it trains on.
        edits: The number of the last edit of labels.
        resumes: The name of the run that it resumes; empty for a new one.
        is_planned: Whether its plan was made before.
    """

    settings: Mapping[str, str]
    images: int
    edits: int
    resumes: str = ""
    is_planned: bool = False


@dataclass(frozen=True)
class Job:
    """A request with its number, and since when it is in the queue (ISO 8601)."""

    number: Annotated[int, Field(ge=1)]
    when: str
    request: Request


@dataclass(frozen=True)
class Begun:
    """A job that was begun: when, and the number of the newest run that was there before, 0 if there was none."""

    job: Job
    when: str
    after: int


@dataclass(frozen=True)
class Refused:
    """A job that could not be begun, and why."""

    job: Job
    reason: str


_REQUEST, _NUMBER = TypeAdapter(Request), TypeAdapter(Annotated[int, Field(ge=1)])
_NAMES = TypeAdapter(tuple[str, ...])


class TrainingQueue:
    """The jobs of a project; every change is on disk before it is one. Not to be called from several threads at once.

    Attributes:
        begun: Every job that was begun, the oldest first.
        refused: The last job, if it could not be begun.
    """

    def __init__(self, journal: Journal) -> None:
        """Read the lines of a journal; raises `DataError` where one about a job is damaged."""
        self._journal = journal
        self._waiting: dict[int, Job] = {}
        self._last = 0
        self.begun: list[Begun] = []
        self.refused: Refused | None = None
        for line in journal.lines:
            try:
                self._apply(line)
            except (KeyError, ValueError) as error:
                problem = "a line about a run is damaged; restore the file from a copy"
                raise DataError(f"{journal.file}: {problem}") from error

    @property
    def waiting(self) -> tuple[Job, ...]:
        """The jobs that wait, the next one first."""
        return tuple(self._waiting.values())

    @property
    def next_number(self) -> int:
        """The number that the next job gets."""
        return self._last + 1

    def add(self, request: Request) -> None:
        """Put a job at the end; raises `WriteError`, and then it is not there."""
        self._write(QUEUE, self.next_number, **asdict(request))

    def begin(self, job: Job, newest: RunFolder | None) -> Begun:
        """Take a job that waits, with the newest run so far; raises `WriteError`, and then it waits on."""
        self._write(BEGIN, job.number, earlier=[newest.path.name] if newest else [])
        return self.begun[-1]

    def cancel(self, number: int) -> None:
        """Take a job away; raises `TrainingError` if it does not wait, and `WriteError`."""
        if number not in self._waiting:
            raise TrainingError("this run does not wait any more")
        self._write(CANCEL, number)

    def refuse(self, job: Job, reason: str) -> None:
        """Take a job away that cannot be begun; raises `WriteError`."""
        self._write(REFUSE, job.number, reason=reason)

    def _write(self, action: str, number: int, **facts: Any) -> None:
        line = {"action": action, "number": number, **facts, "when": _now()}
        self._journal.append([line])
        self._apply(line)

    def _apply(self, line: Line) -> None:
        action = line.get("action")
        # Others are not about jobs, nor are the lines of releases without a queue.
        if action not in (QUEUE, BEGIN, CANCEL, REFUSE) or "number" not in line:
            return
        number = _NUMBER.validate_python(line["number"])
        if action == QUEUE:
            facts = {field.name: line[field.name] for field in fields(Request)}
            self._waiting[number] = Job(number, str(line["when"]), _REQUEST.validate_python(facts))
            self._last = max(self._last, number)
            return
        job = self._waiting.pop(number)
        self.refused = Refused(job, str(line["reason"])) if action == REFUSE else None
        if action == BEGIN:
            # Earlier releases wrote the names of all runs.
            names = _NAMES.validate_python(line["earlier"])
            self.begun.append(Begun(job, str(line["when"]), max(map(RunFolder.number_of, names), default=0)))


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
