"""Which folder is the run of a job of the queue: a job has no folder before its process has made one."""

from __future__ import annotations

import math
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
        runs = (run for run in self.newest_first() if not run.is_finished)
        return next((run for run in runs if _is_of_a_job(run)), None)

    def of(self, begun: Begun) -> RunFolder | None:
        """The run that a job made or resumed; `None` until it has a folder."""
        if begun.job.request.resumes:
            return RunFolder.named(self._folder, begun.job.request.resumes)
        later = next((one for one in self._queue.begun if one.job.number > begun.job.number), None)
        last = later.after if later else math.inf
        new = (run for run in reversed(self.newest_first()) if begun.after < run.number <= last)
        return next((run for run in new if _is_of_a_job(run)), None)

    def beginning_of(self, run: RunFolder) -> Begun | None:
        """The job that made a run; `None` for one that was not begun in this project."""
        # Only the last job that began before the run was there can have made it.
        latest = next((begun for begun in reversed(self._queue.begun) if begun.after < run.number), None)
        is_new = latest is not None and not latest.job.request.resumes
        return latest if latest and is_new and self.of(latest) == run else None


def _is_of_a_job(run: RunFolder) -> bool:
    """Whether a job can have made a run: another process makes updates."""
    return not run.update.exists()
