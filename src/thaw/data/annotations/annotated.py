"""What every reader of an export gives: images with their labels, as the export names them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thaw.formats import count, shortened


@dataclass(frozen=True)
class AnnotatedImage:
    """One labelled image of an export.

    Attributes:
        places: Paths at which the image may be, relative to the folder of images, the most likely one first.
        labels: Its labels, which are empty where an annotator chose none.
        name: What it is called in messages, such as `task 3`.
        split: The name of its split in the export, if it has one.
    """

    places: Sequence[str]
    labels: Sequence[str]
    name: str
    split: str | None = None


@dataclass(frozen=True)
class Annotations:
    """The labelled images of an export in its order, and remarks on what was left out."""

    images: Sequence[AnnotatedImage]
    notes: tuple[str, ...] = ()


def without_label(number: int) -> tuple[str, ...]:
    """The remark on images that an export lists and nobody has labelled."""
    return (f"{count(number, 'image')} without a label, not used",) if number else ()


def is_objects(content: Any) -> bool:
    """Whether a value of JSON is a list of at least one object, and of nothing else."""
    return isinstance(content, list) and bool(content) and all(isinstance(item, dict) for item in content)


def field_of(item: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """A required field of an object in JSON; raises `ValueError` where it is missing or of another type."""
    value = item.get(name)
    # In Python, but not in JSON, true is a number.
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    found = "is missing" if value is None else f"is {shortened(json.dumps(value))}"
    expected = {str: "text", int: "a whole number", list: "a list", dict: "an object"}[kind]
    raise ValueError(f"{where}: {name!r} {found}, where {expected} is expected")
