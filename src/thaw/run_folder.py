"""The folder that a run leaves: the only place that knows its file names."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thaw import atomic, hub
from thaw.errors import DataError, ResumeError
from thaw.recipe import Recipe

_NAME = re.compile(r"(train|inspect)-(\d+)")


@dataclass(frozen=True)
class RunFolder:
    """One run on disk; nothing in it is ever overwritten by another run."""

    path: Path

    @classmethod
    def create(cls, parent: Path) -> RunFolder:
        """Make `parent/train-N` with the next free N; safe when several runs start at once."""
        return cls(_next_folder(parent, "train"))

    @classmethod
    def at(cls, path: Path) -> RunFolder:
        """The finished run at a path; raises `DataError` when there is none."""
        folder = cls(path)
        if not folder.is_finished:
            why = "has not finished; continue it with --resume" if folder.recipe.is_file() else "is no run folder"
            raise DataError(f"{path}: {why if path.exists() else 'there is no such run'}")
        return folder

    @classmethod
    def latest_unfinished(cls, parent: Path) -> RunFolder:
        """The newest run under `parent` that did not end; raises `ResumeError` when there is none."""
        folders = sorted(parent.iterdir(), key=_number, reverse=True) if parent.is_dir() else []
        for folder in folders:
            if _number(folder) and not cls(folder).is_finished:
                return cls(folder)
        raise ResumeError(f"{parent}: there is no unfinished run to resume; leave out --resume to start one")

    @classmethod
    def earlier(cls, parent: Path) -> list[RunFolder]:
        """Runs under `parent` that have a manifest, newest first."""
        folders = sorted(parent.iterdir(), key=_number, reverse=True) if parent.is_dir() else []
        return [cls(folder) for folder in folders if _number(folder) and cls(folder).manifest.is_file()]

    @property
    def recipe(self) -> Path:
        """Every setting as resolved, YAML."""
        return self.path / "recipe.yaml"

    @property
    def plan(self) -> Path:
        """The choices, their reasons, predicted and actual time, JSON."""
        return self.path / "plan.json"

    @property
    def manifest(self) -> Path:
        """The table of the data set, Parquet."""
        return self.path / "manifest.parquet"

    @property
    def unreadable(self) -> Path:
        """Path and reason of each image that could not be read, CSV; absent when all could."""
        return self.path / "unreadable.csv"

    @property
    def augmentations(self) -> Path:
        """What training sees, PNG."""
        return self.path / "augmentations.png"

    @property
    def metrics(self) -> Path:
        """One row an epoch, CSV."""
        return self.path / "metrics.csv"

    @property
    def checkpoints(self) -> Path:
        """Folder of the last and the best checkpoint."""
        return self.path / "checkpoints"

    @property
    def evaluation(self) -> Path:
        """Metrics of the finished classifier on validation and test, JSON."""
        return self.path / "evaluation.json"

    @property
    def predictions(self) -> Path:
        """What the finished classifier said of each image of validation and test, Parquet."""
        return self.path / "predictions.parquet"

    @property
    def report(self) -> Path:
        """The page that tells all of it: one HTML file that needs no network."""
        return self.path / "report.html"

    @property
    def model(self) -> Path:
        """The bundle."""
        return self.path / "model"

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end."""
        return self.evaluation.is_file()

    def remove_leftovers(self) -> None:
        """Drop what a killed run left half-written."""
        for folder in (self.path, self.checkpoints):
            atomic.remove_leftovers(folder)

    def write_recipe(self, recipe: Recipe) -> None:
        """Keep the resolved recipe."""
        atomic.write_text(self.recipe, recipe.to_yaml())

    def write_plan(self, content: Mapping[str, Any]) -> None:
        """Keep the plan."""
        atomic.write_text(self.plan, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def read_plan(self) -> dict[str, Any] | None:
        """The plan, or `None` when the run had not come so far."""
        return json.loads(self.plan.read_text(encoding="utf-8")) if self.plan.is_file() else None

    def write_evaluation(self, content: Mapping[str, Any]) -> None:
        """Keep the final metrics; a run that has them is finished."""
        atomic.write_text(self.evaluation, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def write_metrics(self, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
        """Keep the table of epochs."""
        atomic.write_text(self.metrics, _csv_text(header, rows))

    def write_report(self, page: str) -> None:
        """Keep the page."""
        atomic.write_text(self.report, page)

    def write_unreadable(self, rows: Sequence[tuple[str, str]]) -> None:
        """List the images that cannot be read, when there are any."""
        if rows:
            atomic.write_text(self.unreadable, _csv_text(("path", "reason"), rows))


@dataclass(frozen=True)
class InspectionFolder:
    """What one inspection leaves on disk."""

    path: Path

    @classmethod
    def create(cls, parent: Path) -> InspectionFolder:
        """Make `parent/inspect-N` with the next free N; safe when several start at once."""
        return cls(_next_folder(parent, "inspect"))

    @property
    def page(self) -> Path:
        """Everything that was found, with pictures: one HTML file that needs no network."""
        return self.path / "inspect.html"

    @property
    def findings(self) -> Path:
        """Everything that was found, JSON."""
        return self.path / "inspect.json"

    def write(self, page: str, findings: Mapping[str, Any]) -> None:
        """Keep page and findings."""
        atomic.write_text(self.findings, json.dumps(findings, indent=1, ensure_ascii=False) + "\n")
        atomic.write_text(self.page, page)


def bundle_of(path: Path) -> Path:
    """The bundle that a person means by a run folder, a bundle folder, or `hub:OWNER/NAME`, which is fetched.

    Raises `DataError` when it is neither, and `BundleError` where it cannot be fetched.
    """
    if hub.is_hub_name(str(path)):
        return hub.fetch(str(path))
    for folder in (RunFolder(path).model, path):
        if (folder / "config.json").is_file():
            return folder
    if not path.exists():
        raise DataError(f"{path}: there is no such run or bundle")
    if RunFolder(path).recipe.is_file():
        raise DataError(f"{path}: this run has not finished; continue it with `thaw train DATA --resume`")
    raise DataError(f"{path}: neither a finished run nor a bundle; a bundle holds config.json and model.safetensors")


def _csv_text(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """CSV as RFC 4180 has it, with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _next_folder(parent: Path, kind: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    number = max((_number(child, kind) for child in parent.iterdir()), default=0)
    while True:
        number += 1
        try:
            (parent / f"{kind}-{number}").mkdir()
        except FileExistsError:
            continue
        return parent / f"{kind}-{number}"


def _number(folder: Path, kind: str = "train") -> int:
    match = _NAME.fullmatch(folder.name)
    return int(match.group(2)) if match and match.group(1) == kind and folder.is_dir() else 0
