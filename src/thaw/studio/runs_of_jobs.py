"""Which folder is the run of a job of the queue: a job has no folder before its process has made one."""

from __future__ import annotations

from pathlib import Path

from thaw.run_folder import RunFolder
from thaw.studio.training_queue import Begun, TrainingQueue


class RunsOfJobs:
    """The runs of a project, and the jobs that made them."""

    def __init__(self, runs: Path, queue: TrainingQueue) -> None:
        self._folder, self._queue = runs, queue

    def newest_first(self) -> list[RunFolder]:
        """Every run of the project."""
        return RunFolder.newest_first(self._folder)

    def unfinished(self) -> RunFolder | None:
        """The newest run that has not finished, which is the one that `--resume` resumes."""
        return next((run for run in self._trained() if not run.is_finished), None)

    def of(self, begun: Begun) -> RunFolder | None:
        """The run that a job made or resumed; `None` until it has a folder."""
        if begun.job.request.resumes:
            return RunFolder.named(self._folder, begun.job.request.resumes)
        later = next((one for one in self._queue.begun if one.job.number > begun.job.number), None)
        known = [run for run in self._trained() if later is None or run.path.name in later.earlier]
        new = [run for run in known if run.path.name not in begun.earlier]
        return new[-1] if new else None

    def beginning_of(self, run: RunFolder) -> Begun | None:
        """The job that made a run; `None` for one that was not begun in this project."""
        new = (begun for begun in self._queue.begun if not begun.job.request.resumes)
        return next((begun for begun in new if self.of(begun) == run), None)

    def _trained(self) -> list[RunFolder]:
        """Every run but updates, which another process makes, the newest first."""
        return [run for run in self.newest_first() if not run.update.exists()]
