"""What is said about an image: its label, that it is excluded, or nothing yet; and the changes of it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from thaw.data.class_names import normalised, unify
from thaw.data.table_cells import SEPARATOR, labels_of
from thaw.errors import DataError

_NOT_SEEN = ("Cf", "Mn", "Zs")
MAX_NAME = 100
"""Characters of a class name."""


@dataclass(frozen=True)
class Mark:
    """The state of an image; without a label and not excluded it is still to be labelled.

    As JSON it is the label, `null`, `{"excluded": true}`, or with `"ambiguous": true` besides.

    Attributes:
        label: Its class.
        excluded: It is not trained on.
        ambiguous: It is excluded because it cannot be said which class it is of.
    """

    label: str | None = None
    excluded: bool = False
    ambiguous: bool = False

    def __post_init__(self) -> None:
        if self.excluded and self.label is not None:
            raise ValueError("an excluded image has no label")
        if self.ambiguous and not self.excluded:
            raise ValueError("an ambiguous image is excluded")

    def to_json(self) -> Any:
        """A plain value."""
        if self.ambiguous:
            return {"excluded": True, "ambiguous": True}
        return {"excluded": True} if self.excluded else self.label

    @classmethod
    def from_json(cls, value: Any) -> Mark:
        """What `to_json` gave; raises `ValueError` or `DataError` for anything else."""
        if value == {"excluded": True}:
            return EXCLUDED
        if value == AMBIGUOUS.to_json():
            return AMBIGUOUS
        if value is None:
            return UNLABELLED
        if isinstance(value, str) and value:
            unify({value: "label"})
            return cls(value)
        raise ValueError("a mark is a label, null, or an object with excluded")


UNLABELLED, EXCLUDED, AMBIGUOUS = Mark(), Mark(excluded=True), Mark(excluded=True, ambiguous=True)


@dataclass(frozen=True)
class Change:
    """One line of `labels.jsonl`: an image had one mark and got another.

    Attributes:
        edit: The number of the edit that it belongs to, of which one may concern many images.
        image: SHA-256 of the file.
        path: Of the file in the folder of images.
        before, after: Its marks.
        when: Time with its zone.
        by: The user's name.
        images: How many images the edit changes: one whose lines are not all there was never acknowledged.
        undoes: The number of the edit that this one takes back.
    """

    edit: int
    image: str
    path: str
    before: Mark
    after: Mark
    when: datetime
    by: str
    images: int = 1
    undoes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = {
            "edit": self.edit,
            "image": self.image,
            "path": self.path,
            "from": self.before.to_json(),
            "to": self.after.to_json(),
            "when": self.when.isoformat(timespec="milliseconds"),
            "by": self.by,
            "images": self.images,
        }
        return values if self.undoes is None else {**values, "undoes": self.undoes}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Change:
        """What `to_json` gave; raises one of several exceptions for anything else."""
        return cls(
            edit=int(values["edit"]),
            image=str(values["image"]),
            path=str(values["path"]),
            before=Mark.from_json(values["from"]),
            after=Mark.from_json(values["to"]),
            when=datetime.fromisoformat(values["when"]),
            by=str(values["by"]),
            images=int(values.get("images", 1)),
            undoes=values.get("undoes"),
        )


def checked_name(text: str, classes: tuple[str, ...]) -> str:
    """A class name as it is kept: one of the classes, or a new one; raises `DataError` if it cannot name a class."""
    name = normalised(text)
    if name in classes:
        return name
    if all(unicodedata.category(character) in _NOT_SEEN for character in name):
        raise DataError("a class needs a name")
    if len(name) > MAX_NAME:
        raise DataError(f"the name of a class may have {MAX_NAME} characters")
    if SEPARATOR in name:
        raise DataError(f"the name of a class may not contain {SEPARATOR}, which separates labels in tables")
    if not is_kept_by_tables(name):
        raise DataError(
            f"a class may not be called {name}, which a table of labels reads otherwise; choose another name"
        )
    unify({name: "new class"}, classes)
    return name


def is_kept_by_tables(name: str) -> bool:
    """Whether a table of labels, which runs train on, is read to have this class name; 1.0 is read as 1."""
    try:
        return labels_of(name, may_be_several=False) == [normalised(name)]
    except ValueError:
        return False
