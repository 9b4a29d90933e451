"""The folder of a project: the only module that knows its file names."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thaw import atomic
from thaw.data.walk import existing_folder
from thaw.errors import DataError
from thaw.formats import command
from thaw.marker import mark
from thaw.remote import address_of, is_remote
from thaw.writing import check_writable, explained

_ABOUT, _LABELS, _IMAGES = "project.json", "labels.jsonl", "images"


@dataclass(frozen=True)
class QueuedFiles:
    """The files of a run that was queued, in a folder of their own."""

    folder: Path

    @property
    def table(self) -> Path:
        """The labels that it trains on, CSV."""
        return self.folder / "labels.csv"

    @property
    def digests(self) -> Path:
        """The SHA-256 of each of these images as it was labelled, by path, JSON."""
        return self.folder / "digests.json"

    @property
    def recipe(self) -> Path:
        """The recipe that it starts from, YAML."""
        return self.folder / "recipe.yaml"

    @property
    def log(self) -> Path:
        """What it says on its console."""
        return self.folder / "training.log"

    @property
    def run(self) -> Path:
        """The folder of a run that was planned before it was queued, until it is begun."""
        return self.folder / "run"

    def make(self) -> None:
        """Make the folder; raises `WriteError` where it cannot be made."""
        with explained(self.folder):
            self.folder.parent.mkdir(exist_ok=True)
            self.folder.mkdir(exist_ok=True)


@dataclass(frozen=True)
class Project:
    """A project on disk.

    Attributes:
        path: Its folder.
        images: The folder or table of images; its own folder `added` where images are only added in the browser.
        table: Labels that the images of a folder came with.
    """

    path: Path
    images: Path
    table: Path | None = None

    @classmethod
    def open(cls, path: Path, images: Path | None = None, table: Path | None = None) -> Project:
        """Find out what a project is about; nothing is written before `make`.

        Args:
            path: Its folder.
            images: The folder or table of images; those of last time where it is not given, and for a new project those
                that are added in the browser.
            table: Labels that the images of a folder came with; those of last time where neither is given.

        Raises:
            DataError: The folder is something else, or labels are given without images.
            WriteError: It cannot be written.
        """
        known = _read(path / _ABOUT)
        # With labels it is one whose `project.json` is damaged, and is written again.
        if known is None and path.is_dir() and any(path.iterdir()) and not (path / _LABELS).is_file():
            raise DataError(f"{path}: is not a project of Studio; choose another folder with --project")
        if images is None and known is None and (path / _LABELS).is_file():
            raise DataError(f"{path}: {_ABOUT} is damaged; say which images: thaw studio IMAGES")
        if images is None and known is not None:
            remembered = known.get("table")
            images = Path(known["images"]) if known["images"] is not None else None
            table = table or (Path(remembered) if remembered else None)
        check_writable(path)
        folder = path.resolve()
        own = folder / _IMAGES
        if images is None or (not is_remote(images) and images.resolve() == own):
            if table is not None:
                again = command("thaw", "studio", "IMAGES", "--labels", table)
                raise DataError(f"{table}: say which images these labels are of: {again}")
            return cls(folder, own)
        return cls(folder, _absolute(images), _absolute(table) if table else None)

    def make(self) -> None:
        """Make its folder, unless it is there; raises `WriteError` where it cannot be written."""
        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            if _read(self._about) is None:
                self.remember()
            mark(self.path)
            self.runs.mkdir(exist_ok=True)

    def remember(self) -> None:
        """Write down which images these are, for the next time; raises `WriteError` where it cannot be written."""
        # Its own folder is not named, so that the project can be moved.
        images = None if self.has_own_images else str(self.images)
        facts = {"images": images, "table": str(self.table) if self.table else None}
        if facts != _read(self._about):
            atomic.write_text(self._about, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")

    def watched_folder(self, text: str, allowed: Path | None = None) -> Path:
        """The folder that a text names, absolute or relative to the project.

        Args:
            text: What was typed.
            allowed: A folder outside of the project and of its images that may be watched all the same.

        Raises:
            DataError: There is no such folder, it is elsewhere, or Studio writes there.
        """
        try:
            folder = (self.path / text).resolve()
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError("this cannot be the name of a folder") from error
        places = [self.path, *([] if is_remote(self.images) else [self.images]), *([allowed] if allowed else [])]
        if not any(folder.is_relative_to(place.resolve()) for place in places):
            raise DataError(
                f"{folder}: is neither in the project nor in the folder of its images; "
                "to watch it, start Studio with --watch and this folder"
            )
        written = (self.runs, self.bundles, self.exports, self.thumbnails, self.plan, self.queue)
        if folder == self.path or any(folder.is_relative_to(place) for place in written):
            raise DataError(f"{folder}: Studio writes images of its own there; choose another folder")
        return existing_folder(folder)

    @property
    def _about(self) -> Path:
        return self.path / _ABOUT

    @property
    def has_own_images(self) -> bool:
        """Whether it has no images but those that are added in the browser."""
        return self.images == self.added

    @property
    def name(self) -> str:
        """What it is called in the browser."""
        return self.path.name if self.has_own_images else self.images.name

    @property
    def added(self) -> Path:
        """The folder of the images that were added in the browser."""
        return self.path / _IMAGES

    @property
    def uploads(self) -> Path:
        """The folder of files that are still arriving."""
        return self.path / "uploads"

    @property
    def labels(self) -> Path:
        """Every change of a label, one a line."""
        return self.path / _LABELS

    @property
    def actions(self) -> Path:
        """Everything else that was done in Studio, one action a line."""
        return self.path / "actions.jsonl"

    @property
    def training_table(self) -> Path:
        """The labels that the latest run trains on, CSV."""
        return self.path / "labels.csv"

    @property
    def runs(self) -> Path:
        """The folder of the runs."""
        return self.path / "runs"

    @property
    def bundles(self) -> Path:
        """The folder of classifiers with another decision, one bundle each."""
        return self.path / "bundles"

    @property
    def exports(self) -> Path:
        """The folder of exports to other engines."""
        return self.path / "exports"

    def class_folders(self, number: int) -> Path:
        """A folder of class folders with copies of the labelled images, of which there can be several."""
        return self.path / f"class-folders-{number}"

    @property
    def promotions(self) -> Path:
        """Every promotion of a classifier and every roll back, one a line."""
        return self.path / "promotions.jsonl"

    @property
    def training_lock(self) -> Path:
        """A file that is locked while a run trains."""
        return self.path / "training.lock"

    @property
    def training_state(self) -> Path:
        """Which process was started last, JSON."""
        return self.path / "training.json"

    @property
    def queue(self) -> Path:
        """The folder of the files of queued runs."""
        return self.path / "queue"

    def queued(self, number: int) -> QueuedFiles:
        """The files of the queued run of a number."""
        return QueuedFiles(self.queue / str(number))

    @property
    def plan(self) -> Path:
        """The folder of the plan of the next run."""
        return self.path / "plan"

    @property
    def planned(self) -> Path:
        """A run that is begun up to its plan."""
        return self.plan / "run"

    @property
    def planned_table(self) -> Path:
        """The labels that are planned for, CSV."""
        return self.plan / "labels.csv"

    @property
    def planned_recipe(self) -> Path:
        """The recipe that the plan starts from, YAML."""
        return self.plan / "recipe.yaml"

    @property
    def plan_request(self) -> Path:
        """What is planned, JSON."""
        return self.plan / "request.json"

    @property
    def plan_lock(self) -> Path:
        """A file that is locked while a run is planned."""
        return self.plan / "plan.lock"

    @property
    def plan_log(self) -> Path:
        """What the plan says on its console."""
        return self.plan / "plan.log"

    @property
    def update_table(self) -> Path:
        """The labels that the latest update learns from, CSV."""
        return self.path / "update.csv"

    @property
    def update_lock(self) -> Path:
        """A file that is locked while a run is updated."""
        return self.path / "update.lock"

    @property
    def update_state(self) -> Path:
        """Which update was started last, JSON."""
        return self.path / "update.json"

    @property
    def update_log(self) -> Path:
        """What the latest update says on its console."""
        return self.path / "update.log"

    @property
    def thumbnails(self) -> Path:
        """Folder of the small images of the grid."""
        return self.path / "thumbnails"


def _absolute(place: Path) -> Path:
    """A place as it is remembered: for remote storage without its password, which only this process knows then."""
    return Path(address_of(place)) if is_remote(place) else place.absolute()


def _read(file: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        known = json.loads(file.read_bytes())
        if isinstance(known, dict) and "images" in known and isinstance(known["images"], str | None):
            return known
    return None
