"""COCO JSON: the categories of the annotations of an image are its labels."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from thaw.data.annotations.annotated import AnnotatedImage, Annotations, field_of, is_objects, without_label
from thaw.data.annotations.places import places_of

_PARTS = ("images", "annotations", "categories")


def is_coco(content: Any) -> bool:
    """Whether the content of a JSON file is COCO."""
    return isinstance(content, dict) and all(isinstance(content.get(part), list) for part in _PARTS)


def read_coco(content: Any) -> Annotations:
    """The images that have annotations, with the names of their categories, each once.

    Raises:
        ValueError: An entry lacks a field, or names an image or category that is not listed.
    """
    for part in _PARTS:
        if not is_objects(content[part]):
            raise ValueError(f"{part!r} is not a list of objects")
    names = {
        field_of(item, "id", int, where): field_of(item, "name", str, where)
        for item, where in _numbered(content, "categories")
    }
    labels: defaultdict[int, dict[str, None]] = defaultdict(dict)
    for item, where in _numbered(content, "annotations"):
        category = field_of(item, "category_id", int, where)
        if category not in names:
            raise ValueError(f"{where}: there is no category {category}")
        labels[field_of(item, "image_id", int, where)][names[category]] = None
    images, listed, unlabelled = [], set(), 0
    for item, where in _numbered(content, "images"):
        identifier, path = field_of(item, "id", int, where), field_of(item, "file_name", str, where)
        if identifier in listed:
            raise ValueError(f"{where}: another image has the id {identifier}")
        listed.add(identifier)
        if identifier in labels:
            images.append(AnnotatedImage(places_of(path), list(labels[identifier]), where))
        else:
            unlabelled += 1
    if missing := labels.keys() - listed:
        raise ValueError(f"an annotation is of image {min(missing)}, which is not listed")
    return Annotations(images, without_label(unlabelled))


def _numbered(content: Any, part: str) -> list[tuple[Any, str]]:
    """The entries of a part with the name of each in messages."""
    noun = {"images": "image", "annotations": "annotation", "categories": "category"}[part]
    return [(item, f"{noun} {number}") for number, item in enumerate(content[part], start=1)]
