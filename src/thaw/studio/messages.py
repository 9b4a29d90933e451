"""The JSON of requests and replies about images and labels; what is wrong with a request is one sentence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from thaw.errors import DataError
from thaw.studio.labels import Edit
from thaw.studio.marks import Mark, checked_name
from thaw.studio.workspace import Workspace
from thaw.web.limits import RequestRefused

if TYPE_CHECKING:
    from thaw.studio.piles import Pile

MAX_ROWS = 100_000
"""Images of one edit."""
MAX_PAGE = 500
"""Images that are described at once."""
_ID = re.compile(r"[0-9]{1,9}")
"""Python converts no more than some thousand digits to a number."""


class Seen(BaseModel):
    """An image, and the mark that it had where the edit was made."""

    model_config = ConfigDict(extra="forbid", strict=True)
    id: Annotated[int, Field(ge=0)]
    mark: Any


class EditRequest(BaseModel):
    """Some images get a mark."""

    model_config = ConfigDict(extra="forbid", strict=True)
    images: Annotated[list[Seen], Field(min_length=1, max_length=MAX_ROWS)]
    to: Any

    def seen(self, workspace: Workspace) -> dict[int, Mark]:
        """The mark that was seen, by row; raises `RequestRefused`."""
        marks = {image.id: _mark(image.mark) for image in self.images}
        if max(marks) >= len(workspace.images):
            raise RequestRefused(404, "not_found", "there is no such image")
        return marks

    def after(self, workspace: Workspace) -> Mark:
        """The new mark; raises `RequestRefused`."""
        mark = _mark(self.to)
        if mark.label is None:
            return mark
        try:
            return Mark(checked_name(mark.label, workspace.labels.classes))
        except DataError as error:
            raise RequestRefused(422, "bad_request", str(error).removeprefix("new class: ")) from error


class UndoRequest(BaseModel):
    """The last edit is taken back, which has this number."""

    model_config = ConfigDict(extra="forbid", strict=True)
    edit: Annotated[int, Field(ge=1)]


def _mark(value: Any) -> Mark:
    try:
        return Mark.from_json(value)
    except (ValueError, DataError) as error:
        raise RequestRefused(422, "bad_request", str(error).removeprefix("label: ")) from error


def state(workspace: Workspace) -> dict[str, Any]:
    """What every screen shows: classes and counts, the edit to undo, and what is being computed."""
    labels, marks = workspace.labels, workspace.labels.marks()
    counts = Counter(mark.label for mark in marks if mark.label is not None)
    excluded, status = sum(mark.excluded for mark in marks), workspace.background.status
    return {
        "total": len(marks),
        "classes": [{"name": name, "images": counts[name]} for name in labels.classes],
        "unlabelled": len(marks) - excluded - counts.total(),
        "excluded": excluded,
        "ambiguous": sum(mark.ambiguous for mark in marks),
        "splits": sorted({split for split in workspace.images.splits if split}),
        "undo": undo(labels.last_edit),
        "changed": labels.changed,
        "background": {"title": status.title, "done": status.done, "total": status.total},
        "errors": workspace.background.errors,
        "ready": 0 if workspace.features is None else len(workspace.features.manifest),
        "piles": None if workspace.piles is None else [_pile(pile) for pile in workspace.piles],
        "piles_at": workspace.piles_at,
    }


def adding(workspace: Workspace) -> dict[str, Any]:
    """What is shown of images that are being added, and of a copy in class folders."""
    additions, copied = workspace.additions, workspace.copied
    proposed = Counter(additions.proposed.values())
    progress = additions.progress
    return {
        "proposed": [{"name": name, "images": images} for name, images in sorted(proposed.items())],
        "adding": None if progress is None else {"done": progress[0], "total": progress[1]},
        "copied": copied
        and {
            "path": str(copied.path),
            "images": copied.images,
            "left_out": len(copied.left_out),
            "renamed": [f"{label} is in {folder}" for label, folder in copied.renamed.items()],
        },
    }


def undo(edit: Edit | None) -> dict[str, Any] | None:
    """The edit that can be taken back."""
    return None if edit is None else {"edit": edit.number, "sentence": edit.sentence}


def _pile(pile: Pile) -> dict[str, Any]:
    return {"name": pile.name, "title": pile.title, "about": pile.about, "images": len(pile.rows)}


def described(workspace: Workspace, rows: Sequence[int], pile: str = "") -> list[dict[str, Any]]:
    """What the screens show of some images; in a pile, with what it says about them."""
    images, found = workspace.images, workspace.pile(pile)
    notes: Mapping[int, str] = found.notes if found else {}
    suggested: Mapping[int, str] = found.suggested if found else {}
    group = dict(zip(found.rows, found.groups, strict=True)) if found and found.groups else {}
    return [
        {
            "id": row,
            "path": images.paths[row],
            "split": images.splits[row],
            "mark": workspace.labels.mark(row).to_json(),
            "digest": images.version(row),
            "note": notes.get(row, "" if images.is_readable(row) else images.digests[row]),
            "suggested": suggested.get(row),
            "group": group.get(row),
        }
        for row in rows
    ]


def row_number(workspace: Workspace, text: str) -> int:
    """The row that a part of a URL names; raises `RequestRefused`."""
    if not (_ID.fullmatch(text) and int(text) < len(workspace.images)):
        raise RequestRefused(404, "not_found", "there is no such image")
    return int(text)


def row_numbers(workspace: Workspace, ids: str) -> list[int]:
    """The rows that a list of numbers names; raises `RequestRefused`."""
    numbers = ids.split(",")
    if len(numbers) > MAX_PAGE or not all(map(_ID.fullmatch, numbers)):
        raise RequestRefused(422, "bad_request", f"ids: at most {MAX_PAGE} numbers of images are expected")
    rows = [int(part) for part in numbers]
    if max(rows) >= len(workspace.images):
        raise RequestRefused(404, "not_found", "there is no such image")
    return rows
