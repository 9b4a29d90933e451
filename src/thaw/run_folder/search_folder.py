"""The folder that a search leaves: file names, and what each file holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thaw import atomic
from thaw.csv_text import csv_text
from thaw.errors import DataError, ResumeError, first_line
from thaw.recipe import Recipe, ResolvedRecipe, SplitSettings
from thaw.run_folder.folder import RunFolder
from thaw.run_folder.numbered import NumberedFolder
from thaw.run_folder.trial_record import TrialName, TrialRecord


@dataclass(frozen=True)
class SearchFile:
    """What a search began with.

    Attributes:
        requested: The recipe that was requested.
        planned: The plan's recipe, which is trial 0 of every level.
        base: What all trials share.
        space: What is tried for each setting, as a file of ranges has it.
        weights: The weights of each network to choose from, by name.
        monitor: The metric that is maximized.
        seed: Of what is sampled.
        identity: Tells its studies from those of other searches in one database.
        storage: URL of the database of the studies, without its password; empty for a file in the folder.
        seconds: How long it may take; `None` for as long as it pays.
        trials: How many trials there may be; `None` for as many as pay.
        refit: Whether the recipe that it finds is trained on all images but those of test at the end.
        fixed: Settings that no trial changes.
        given: Those whose ranges were given.
        spent: Seconds that it had taken before its first trial.
    """

    requested: Recipe
    planned: ResolvedRecipe
    base: Recipe
    space: Mapping[str, Any]
    weights: Mapping[str, str]
    monitor: str
    seed: int
    identity: str = ""
    storage: str = ""
    seconds: float | None = None
    trials: int | None = None
    refit: bool = False
    fixed: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    spent: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values that `from_json` reads."""
        recipes = {name: getattr(self, name).model_dump(mode="json") for name in ("requested", "planned", "base")}
        return {**vars(self), **recipes, "space": dict(self.space), "weights": dict(self.weights)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SearchFile:
        """What `to_json` gave."""
        recipes = {name: Recipe.from_values(values[name]) for name in ("requested", "base")}
        lists = {name: tuple(values.get(name, ())) for name in ("fixed", "given")}
        return cls(**{**values, **recipes, **lists, "planned": ResolvedRecipe.from_values(values["planned"])})


@dataclass(frozen=True)
class SearchFolder(NumberedFolder):
    """One search on disk."""

    kind = "search"

    @classmethod
    def latest_unfinished(cls, parent: Path, refit: bool = False) -> SearchFolder:
        """The newest search under `parent` that has not ended, or with `refit` the newest one.

        Raises `ResumeError` when there is none, or it has its refit.
        """
        for folder in cls.newest_first(parent):
            has_ended = folder.recipe.is_file()
            if refit and has_ended and folder.refit.is_finished:
                raise ResumeError(
                    f"{folder.path}: has its refit, {folder.refit.path}; omit --refit to start a new search"
                )
            if folder.file.is_file() and (refit or not has_ended):
                return folder
        raise ResumeError(f"{parent}: there is no unfinished search to resume; omit --resume to start a new one")

    @classmethod
    def earlier(cls, parent: Path) -> list[SearchFolder]:
        """Searches under `parent` that have a manifest and know what they began with, newest first."""
        return [found for found in cls.newest_first(parent) if found.manifest.is_file() and found.file.is_file()]

    def read_split(self) -> SplitSettings:
        """The settings that split its images; raises a `ThawError` where they cannot be read."""
        return self.read_file().planned.split

    @classmethod
    def at(cls, path: Path) -> SearchFolder:
        """The search at a path; raises `DataError` where there is none."""
        folder = cls(path)
        if not folder.file.is_file():
            raise DataError(
                f"{path}: {'is not the folder of a search' if path.exists() else 'there is no such search'}"
            )
        return folder

    @property
    def file(self) -> Path:
        """What the search began with, JSON."""
        return self.path / "search.json"

    @property
    def manifest(self) -> Path:
        """The images with their splits, which all trials share, Parquet."""
        return self.path / "manifest.parquet"

    @property
    def journal(self) -> Path:
        """The Optuna studies, one for each level, which `optuna-dashboard` opens."""
        return self.path / "study.log"

    @property
    def trials(self) -> Path:
        """Folder of the trials: `LEVEL-N.json`, and a folder `short-N` for each that trains stages."""
        return self.path / "trials"

    @property
    def table(self) -> Path:
        """All trials, CSV."""
        return self.path / "trials.csv"

    @property
    def page(self) -> Path:
        """The page: one HTML file that needs no network."""
        return self.path / "search.html"

    @property
    def final(self) -> Path:
        """The runs in which plan and winner are trained afresh."""
        return self.path / "final"

    @property
    def refit(self) -> RunFolder:
        """The run of the recipe on all images but those of test, where it was asked for."""
        return RunFolder(self.path / "refit")

    @property
    def ended(self) -> Path:
        """Why no further trial is tried, text; absent while there may be more."""
        return self.path / "ended.txt"

    @property
    def recipe(self) -> Path:
        """The recipe to train with; a search that has it has ended."""
        return self.path / "recipe.yaml"

    @property
    def winner(self) -> Path:
        """The recipe of the best trial, where the plan stays all the same."""
        return self.path / "best-trial.yaml"

    def trial(self, name: TrialName) -> RunFolder:
        """Where a trial trains; one of level `full` goes on where its parent did."""
        return RunFolder(self.trials / str(name))

    def write_file(self, content: SearchFile) -> None:
        """Write what the search began with; from then on it can be resumed."""
        self.trials.mkdir(exist_ok=True)
        atomic.write_text(self.file, json.dumps(content.to_json(), indent=2) + "\n")

    def read_file(self) -> SearchFile:
        """What the search began with; raises `DataError` where the file is damaged."""
        with self._readable(self.file):
            return SearchFile.from_json(json.loads(self.file.read_text(encoding="utf-8")))

    def write_ended(self, reason: str) -> None:
        """Write why no further trial is tried; from then on none is, unless there are new limits."""
        atomic.write_text(self.ended, reason)

    def read_ended(self) -> str:
        """Why no further trial is tried; empty while there may be more."""
        return self.ended.read_text(encoding="utf-8") if self.ended.is_file() else ""

    def write_record(self, record: TrialRecord) -> None:
        """Write what a trial measured; from then on it is not evaluated again."""
        atomic.write_text(self.trials / f"{record.name}.json", json.dumps(record.to_json()) + "\n")

    def read_record(self, name: TrialName) -> TrialRecord | None:
        """What a trial measured, or `None` before it ended; raises `DataError` where the file is damaged."""
        file = self.trials / f"{name}.json"
        if not file.is_file():
            return None
        with self._readable(file):
            return TrialRecord.from_json(json.loads(file.read_text(encoding="utf-8")))

    def read_records(self, known: Iterable[TrialRecord] = ()) -> list[TrialRecord]:
        """All trials that have ended, in the order in which they did; those that are known are not read again."""
        found = {record.name: record for record in known}
        for file in self.trials.glob("*.json"):
            level, _, number = file.stem.rpartition("-")
            name = TrialName(level, int(number))  # type: ignore[arg-type]
            if name not in found and (record := self.read_record(name)):
                found[name] = record
        return sorted(found.values(), key=lambda record: (record.ended, record.level, record.number))

    def write_table(self, records: Sequence[TrialRecord]) -> None:
        """Write the table of all trials: a column for each setting that any of them varies."""
        keys = sorted({key for record in records for key in record.settings})
        own = ("trial", "origin", "parent", "state", "value", "standard_error", "seconds", "ended", "latency_ms")
        rows: list[list[object]] = [[*own, *keys, "reason"]]
        for record in records:
            values = [record.name, record.origin, record.parent, *(getattr(record, name) for name in own[3:])]
            settings = [_cell(record.settings.get(key, "")) for key in keys]
            rows.append([*values, *settings, record.reason])
        atomic.write_text(self.table, csv_text(rows))

    @staticmethod
    @contextmanager
    def _readable(file: Path) -> Iterator[None]:
        """A file that is damaged is a `DataError` that names it."""
        try:
            yield
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise DataError(f"{file}: is not what a search writes ({first_line(error)}); start a new search") from error


def _cell(value: Any) -> str:
    """A setting in the table: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
