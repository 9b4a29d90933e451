"""The queue of images to label, and the table that it is written as.

The columns are `path` (relative to the folder of images), `rank`, `cluster`, `reason`, `suggested`, `confidence` and
`error`. Images that cannot be asked for come last, with the reason `error` and without a rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from thaw import atomic
from thaw.csv_text import csv_text
from thaw.labelling.outlook import Outlook
from thaw.writing import check_has_folder

COLUMNS = ("path", "rank", "cluster", "reason", "suggested", "confidence", "error")

_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula at the beginning of a cell."""

Reason = Literal["typical", "uncertain"]


@dataclass(frozen=True)
class QueuedImage:
    """An image to label.

    Attributes:
        path: Relative to the folder of images, with forward slashes.
        rank: Its place in the queue, from 1 on.
        cluster: Images with an equal number were chosen from one cluster of similar images.
        reason: Why it is in the queue: it is typical of images without a label, or the head is uncertain about it.
        suggested, confidence: The most likely label by a linear head on the labels so far, and its probability, 0..1;
            `None` where there are labels of fewer than two classes.
    """

    path: str
    rank: int
    cluster: int
    reason: Reason
    suggested: str | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class FailedImage:
    """An image that cannot be asked for or whose label cannot be used, and why."""

    path: str
    error: str


@dataclass(frozen=True)
class LabelQueue:
    """Images in the order in which labelling them helps most.

    Attributes:
        folder: The folder of images.
        images: The queue.
        errors: Images that cannot be read, or have conflicting labels.
        labelled: How many images have a label that is used.
        waiting: How many images without a label could be in the queue.
        duplicates: How many images without a label are left out as near-duplicates of one that is labelled or waiting.
        strategy: Why the images were chosen as they were, for the user.
        outlook: What more labels would give; `None` without labels of two classes, or where nothing is left to label.
        notes: Remarks for the user.
    """

    folder: Path
    images: tuple[QueuedImage, ...]
    errors: tuple[FailedImage, ...]
    labelled: int
    waiting: int
    duplicates: int
    strategy: str
    outlook: Outlook | None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[QueuedImage]:
        return iter(self.images)

    def to_csv(self) -> str:
        """The table: a header, the queue, then the errors (RFC 4180)."""
        rows = [COLUMNS]
        for image in self.images:
            confidence = "" if image.confidence is None else f"{image.confidence:.4f}"
            place = (str(image.rank), str(image.cluster), image.reason)
            rows.append((_cell(image.path), *place, image.suggested or "", confidence, ""))
        rows += [(_cell(failed.path), "", "", "error", "", "", failed.error) for failed in self.errors]
        return csv_text(rows)

    def write(self, file: str | Path) -> None:
        """Write the table to a file, which must not exist; raises `WriteError` if it does or cannot be written."""
        check_has_folder(Path(file))
        atomic.write_new(Path(file), self.to_csv().encode("utf-8"))


def _cell(path: str) -> str:
    """A path that no spreadsheet takes for a formula: the same file with its folder."""
    return f"./{path}" if path.startswith(_BEGINS_A_FORMULA) else path
