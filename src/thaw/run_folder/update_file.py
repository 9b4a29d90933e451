"""update.json: which run a run updates, where the features of its images are, and what became of each class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from thaw.evaluation.class_changes import ClassChange


@dataclass(frozen=True)
class ImagesPart:
    """Images of a run that were decoded and extracted together.

    images: how many rows of the manifest they are, after those of the parts before. pixels: key of their pixel store.
    """

    images: int
    pixels: str


@dataclass(frozen=True)
class UpdateFile:
    """The content of update.json.

    Attributes:
        source: The run that is updated.
        bundle: SHA-256 of its bundle.
        cut: The cut at which the features of all images are.
        parts: The images of the run, and the new ones.
        old: The old classes on old images, all together last; empty until the update is trained.
        new: The classes of the new images on these, all together last.
        kept: Whether the update is kept; `None` until that is decided.
    """

    source: str
    bundle: str
    cut: str
    parts: tuple[ImagesPart, ...]
    old: tuple[ClassChange, ...] = ()
    new: tuple[ClassChange, ...] = ()
    kept: bool | None = None

    def decided(self, old: tuple[ClassChange, ...], new: tuple[ClassChange, ...]) -> UpdateFile:
        """With the outcome: kept where nothing old falls."""
        return replace(self, old=old, new=new, kept=not any(change.falls for change in old))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> UpdateFile:
        """What `to_json` gave; raises `KeyError` or `TypeError`."""
        old, new = (tuple(ClassChange.from_json(change) for change in values[name]) for name in ("old", "new"))
        parts = tuple(ImagesPart(**part) for part in values["parts"])
        return cls(**{**values, "parts": parts, "old": old, "new": new})
