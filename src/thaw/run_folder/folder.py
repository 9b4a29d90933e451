"""The folders that a run and an inspection leave: file names, and reading and writing each file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from thaw import atomic
from thaw.bundle_path import BASELINE_IN_RUN, FOLDER_IN_RUN
from thaw.csv_text import csv_text
from thaw.errors import DataError, ResumeError, ThawError, first_line
from thaw.in_use import when_closed
from thaw.recipe import Recipe, ResolvedRecipe, SplitSettings
from thaw.run_folder import epochs_file
from thaw.run_folder.evaluation_file import EvaluationFile
from thaw.run_folder.numbered import NumberedFolder
from thaw.run_folder.plan_file import PlanFile
from thaw.run_folder.update_file import UpdateFile
from thaw.temporary import remove_leftovers
from thaw.training.history import EpochRecord

Content = TypeVar("Content")


@dataclass(frozen=True)
class RunFolder(NumberedFolder):
    """One run on disk."""

    kind = "train"

    @classmethod
    def at(cls, path: Path) -> RunFolder:
        """The finished run at a path; raises `DataError` when there is none."""
        folder = cls(path)
        if not folder.is_finished:
            reason = "has not finished; resume it with --resume" if folder.recipe.is_file() else "is not a run folder"
            if update := folder.read_update():
                again = "has not finished; run the same thaw update again"
                reason = again if update.kept is None else "is an update that was not kept"
            raise DataError(f"{path}: {reason if path.exists() else 'there is no such run'}")
        return folder

    @classmethod
    def latest_unfinished(cls, parent: Path) -> RunFolder:
        """The newest run under `parent` that has not finished; raises `ResumeError` when there is none.

        Updates are left out, which resume when they are run again.
        """
        for folder in cls.newest_first(parent):
            if not folder.is_finished and not folder.update.exists():
                return folder
        raise ResumeError(f"{parent}: there is no unfinished run to resume; omit --resume to start a new one")

    @classmethod
    def begun_by(cls, parent: Path, launch: str) -> RunFolder | None:
        """The newest run under `parent` that some processes began before they were restarted."""
        runs = (folder for folder in cls.newest_first(parent) if folder.launch.is_file())
        return next((folder for folder in runs if folder.launch.read_text(encoding="utf-8") == launch), None)

    @classmethod
    def earlier(cls, parent: Path) -> list[RunFolder]:
        """Runs under `parent` that have a manifest and a recipe, newest first."""
        return [run for run in cls.newest_first(parent) if run.manifest.is_file() and run.recipe.is_file()]

    def read_split(self) -> SplitSettings:
        """The settings that split its images; raises a `ThawError` where they cannot be read."""
        return Recipe.load(self.recipe).split

    @property
    def recipe(self) -> Path:
        """The resolved recipe, YAML."""
        return self.path / "recipe.yaml"

    @property
    def requested(self) -> Path:
        """The recipe as it was requested, YAML, until there is a plan, which repeats it."""
        return self.path / "requested.yaml"

    @property
    def launch(self) -> Path:
        """What started the processes that train it, text; absent for one process."""
        return self.path / "launch.txt"

    @property
    def plan(self) -> Path:
        """The choices with their reasons, the gain of each phase, and the time predicted and taken, JSON."""
        return self.path / "plan.json"

    @property
    def manifest(self) -> Path:
        """The table of the images, Parquet."""
        return self.path / "manifest.parquet"

    @property
    def unreadable(self) -> Path:
        """Path and reason of each unreadable image, CSV; absent when all can be read."""
        return self.path / "unreadable.csv"

    @property
    def augmentations(self) -> Path:
        """Examples of the augmented views, PNG."""
        return self.path / "augmentations.png"

    @property
    def update(self) -> Path:
        """Which run it updates, and the outcome, JSON; absent for a run that is no update."""
        return self.path / "update.json"

    @property
    def metrics(self) -> Path:
        """One row per epoch, CSV."""
        return self.path / "metrics.csv"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def evaluation(self) -> Path:
        """Metrics of the finished classifier on validation and test, JSON."""
        return self.path / "evaluation.json"

    @property
    def predictions(self) -> Path:
        """The predictions on every image of validation and test, Parquet."""
        return self.path / "predictions.parquet"

    @property
    def report(self) -> Path:
        """The report: one HTML file that needs no network."""
        return self.path / "report.html"

    @property
    def model(self) -> Path:
        """The bundle."""
        return self.path / FOLDER_IN_RUN

    @property
    def baseline(self) -> Path:
        """The bundle of a linear head, which is there while the plan still measures; absent in short runs."""
        return self.path / BASELINE_IN_RUN

    @property
    def baseline_recipe(self) -> Path:
        """The resolved recipe that repeats the baseline, YAML; absent in short runs."""
        return self.path / "baseline.yaml"

    @property
    def is_finished(self) -> bool:
        """Whether the run has finished."""
        return self.evaluation.is_file()

    def remove_leftovers(self) -> None:
        """Delete what a killed run left half-written."""
        for folder in (self.path, self.checkpoints):
            remove_leftovers(folder)

    def write_recipe(self, recipe: ResolvedRecipe) -> None:
        """Write the resolved recipe."""
        atomic.write_text(self.recipe, recipe.to_yaml())

    def write_baseline_recipe(self, recipe: ResolvedRecipe) -> None:
        """Write the resolved recipe of the baseline."""
        atomic.write_text(self.baseline_recipe, recipe.to_yaml())

    def read_baseline_recipe(self) -> ResolvedRecipe | None:
        """The resolved recipe of the baseline, `None` where there is none; raises `RecipeError`."""
        return ResolvedRecipe.load(self.baseline_recipe) if self.baseline_recipe.is_file() else None

    def read_recipe(self) -> ResolvedRecipe:
        """The resolved recipe; raises `RecipeError`."""
        return ResolvedRecipe.load(self.recipe)

    def write_requested(self, recipe: Recipe) -> None:
        """Write what is requested, for a run that is resumed before it has a plan."""
        atomic.write_text(self.requested, recipe.to_yaml())

    def read_requested(self) -> Recipe | None:
        """The recipe that the run began with; `None` where it was stopped before anything of it was written."""
        if plan := self.read_plan():
            return plan.requested
        return Recipe.load(self.requested) if self.requested.exists() else None

    def write_plan(self, plan: PlanFile) -> None:
        """Write the plan; a run that has it resumes with it."""
        atomic.write_text(self.plan, _json_text(plan.to_json()))
        when_closed(lambda: self.requested.unlink(missing_ok=True))

    def read_plan(self) -> PlanFile | None:
        """The plan, or `None` where the run was stopped before it was made; raises `DataError` if it is damaged."""
        return _read(self.plan, lambda text: PlanFile.from_json(_mapping(text))) if self.plan.exists() else None

    def write_update(self, update: UpdateFile) -> None:
        """Write which run it updates, and the outcome."""
        atomic.write_text(self.update, _json_text(update.to_json()))

    def read_update(self) -> UpdateFile | None:
        """Which run it updates; `None` for a run that is no update; raises `DataError` if the file is damaged."""
        return _read(self.update, lambda text: UpdateFile.from_json(_mapping(text))) if self.update.exists() else None

    def write_launch(self, launch: str) -> None:
        """Write what started the processes that train it."""
        atomic.write_text(self.launch, launch)

    def write_evaluation(self, evaluation: EvaluationFile) -> None:
        """Write the final metrics; a run that has them is finished."""
        atomic.write_text(self.evaluation, _json_text(evaluation.to_json()))

    def read_evaluation(self) -> EvaluationFile:
        """The final metrics; raises `DataError` if the file is damaged."""
        return _read(self.evaluation, lambda text: EvaluationFile.from_json(_mapping(text)))

    def write_epochs(self, records: Sequence[EpochRecord]) -> None:
        """Write the table of epochs."""
        atomic.write_text(self.metrics, csv_text([epochs_file.header(), *epochs_file.rows(records)]))

    def read_epochs(self) -> tuple[EpochRecord, ...]:
        """The table of epochs; raises `DataError` if the file is damaged."""
        return _read(self.metrics, epochs_file.read)

    def write_report(self, page: str) -> None:
        """Write the report."""
        atomic.write_text(self.report, page)

    def write_unreadable(self, rows: Sequence[tuple[str, str]]) -> None:
        """List the unreadable images, if there are any."""
        if rows:
            atomic.write_text(self.unreadable, csv_text([("path", "reason"), *rows]))


@dataclass(frozen=True)
class InspectionFolder(NumberedFolder):
    """The folder that an inspection leaves."""

    kind = "inspect"

    @property
    def page(self) -> Path:
        """All findings, with images: one HTML file that needs no network."""
        return self.path / "inspect.html"

    @property
    def findings(self) -> Path:
        """All findings, JSON."""
        return self.path / "inspect.json"

    def write(self, page: str, findings: Mapping[str, Any]) -> None:
        """Write the page and the findings."""
        atomic.write_text(self.findings, _json_text(findings))
        atomic.write_text(self.page, page)


def _read(file: Path, parse: Callable[[str], Content]) -> Content:
    """What a file of a run contains; raises `DataError` that names the file where it is not what a run writes."""
    try:
        return parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, ThawError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else first_line(error)
        raise DataError(f"{file}: is not what a run writes ({reason}); restore it, or start a new run") from error


def _mapping(text: str) -> dict[str, Any]:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError(f"a JSON object is expected, not {text.strip()[:20]}")
    return values


def _json_text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
