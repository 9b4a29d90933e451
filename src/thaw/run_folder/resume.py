"""Whether the files of an interrupted run are all there and all of that run, before it resumes from them."""

from __future__ import annotations

from collections.abc import Mapping

from thaw.checksums import sha256_of
from thaw.errors import ResumeError, first_line
from thaw.run_folder.folder import RunFolder
from thaw.run_folder.plan_file import PlanFile
from thaw.training import checkpoint
from thaw.training.baseline import BASELINE
from thaw.training.checkpoint import Progress


def checksums(folder: RunFolder) -> dict[str, str]:
    """SHA-256, by name, of the files that training rests on and that do not change during a run."""
    return {file.name: sha256_of(file) for file in (folder.recipe, folder.manifest)}


def check_not_begun(folder: RunFolder) -> None:
    """Raise `ResumeError` where a run without a plan has trained all the same: its plan is lost."""
    trained = [file for file in folder.checkpoints.glob("*.json") if file.stem != BASELINE]
    if folder.metrics.exists() or trained:
        raise ResumeError(f"{folder.plan}: is missing, though training has begun; restore it, or start a new run")


def check_files(folder: RunFolder, plan: PlanFile) -> Progress | None:
    """How far a run has come by its last checkpoint, or `None` before the first.

    Raises:
        ResumeError: A file is missing, damaged, was changed since the run began, or is another run's.
        DataError: metrics.csv is damaged.
    """
    for name, began in plan.files.items():
        file = folder.path / name
        try:
            now = sha256_of(file)
        except OSError as error:
            raise ResumeError(f"{file}: cannot be read ({first_line(error)}); start a new run") from error
        if now != began:
            raise ResumeError(
                f"{file}: was changed since this run began; restore it, or start a new run without --resume"
            )
    progress = checkpoint.check(folder.checkpoints, plan.run)
    logged = folder.read_epochs() if folder.metrics.exists() else ()
    if logged and progress is None:
        missing = folder.checkpoints / "last.json"
        raise ResumeError(f"{missing}: is missing, though {folder.metrics.name} has epochs; start a new run")
    return progress


def machine_differences(began: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """One phrase `this -> that` for each fact of the machine that differs, of those that were written down."""
    return [f"{value} -> {now.get(name, 'none')}" for name, value in began.items() if now.get(name) != value]
