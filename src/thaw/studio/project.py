"""The folder of a project: the only module that knows its file names."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thaw import atomic
from thaw.errors import DataError
from thaw.marker import mark
from thaw.writing import check_writable, explained


@dataclass(frozen=True)
class Project:
    """A project on disk.

    Attributes:
        path: Its folder.
        images: The folder or table of images.
        table: Labels that the images of a folder came with.
    """

    path: Path
    images: Path
    table: Path | None = None

    @classmethod
    def open(cls, path: Path, images: Path | None = None, table: Path | None = None) -> Project:
        """Open a project, or make it.

        Args:
            path: Its folder, made if needed.
            images: The folder or table of images; those of last time where it is not given.
            table: Labels that the images of a folder came with; those of last time where neither is given.

        Raises:
            DataError: The folder is something else, or no images are given for a new project.
            WriteError: It cannot be written.
        """
        about = path / "project.json"
        known = _read(about)
        if known is None and path.is_dir() and any(path.iterdir()):
            raise DataError(f"{path}: is not a project of Studio; choose another folder with --project")
        if images is None:
            if known is None:
                raise DataError(f"{path}: there is no project yet; say which images: thaw studio IMAGES")
            images, remembered = Path(known["images"]), known.get("table")
            table = table or (Path(remembered) if remembered else None)
        check_writable(path)
        with explained(path):
            path.mkdir(parents=True, exist_ok=True)
            mark(path)
        project = cls(path.resolve(), images.absolute(), table.absolute() if table else None)
        project.runs.mkdir(exist_ok=True)
        facts = {"images": str(project.images), "table": str(project.table) if project.table else None}
        if facts != known:
            atomic.write_text(about, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        return project

    @property
    def labels(self) -> Path:
        """Every change of a label, one a line."""
        return self.path / "labels.jsonl"

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
    def training_lock(self) -> Path:
        """A file that is locked while a run trains."""
        return self.path / "training.lock"

    @property
    def training_state(self) -> Path:
        """What was started last, JSON."""
        return self.path / "training.json"

    @property
    def training_log(self) -> Path:
        """What the latest run says on its console."""
        return self.path / "training.log"

    @property
    def thumbnails(self) -> Path:
        """Folder of the small images of the grid."""
        return self.path / "thumbnails"


def _read(file: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        known = json.loads(file.read_bytes())
        if isinstance(known, dict) and isinstance(known.get("images"), str):
            return known
    return None
