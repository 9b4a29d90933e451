"""CVAT for images 1.1: an XML file in which the tags of an image are its labels.

A document type declaration is refused, and with it every entity that could be expanded or loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from thaw.data.annotations.annotated import AnnotatedImage, Annotations, without_label
from thaw.data.annotations.places import places_of
from thaw.formats import count

_SHAPES = frozenset({"box", "polygon", "polyline", "points", "ellipse", "cuboid", "mask", "skeleton"})


def read_cvat(file: Path) -> Annotations:
    """The images of an export that have tags, with the labels of their tags.

    Raises:
        ValueError: The file is not such an export, is damaged, or has a document type declaration.
    """
    document = _Document()
    parser = expat.ParserCreate()
    parser.StartElementHandler = document.start
    parser.EndElementHandler = document.end
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        with file.open("rb") as stream:
            parser.ParseFile(stream)
    except expat.ExpatError as error:
        problem = expat.errors.messages[error.code]
        raise ValueError(f"line {error.lineno}, column {error.offset + 1}: {problem}") from error
    if document.shapes and not document.images:
        raise ValueError(
            f"it has {count(document.shapes, 'shape')} such as boxes, but no tag; labels of whole images are tags"
        )
    ignored = (f"{count(document.shapes, 'shape')} such as boxes, not used",) if document.shapes else ()
    return Annotations(document.images, (*without_label(document.unlabelled), *ignored))


def _refuse_doctype(*_: object) -> NoReturn:
    raise ValueError("it has a document type declaration, which an export of CVAT never has")


class _Document:
    """What the elements say that were parsed so far."""

    def __init__(self) -> None:
        self.images: list[AnnotatedImage] = []
        self.unlabelled = self.shapes = self._number = 0
        self._above: list[str] = []
        self._image: dict[str, str] = {}
        self._labels: dict[str, None] = {}

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if not self._above and name != "annotations":
            raise ValueError(f"its outermost element is {name}, not annotations as in `CVAT for images 1.1`")
        if self._above == ["annotations"] and name == "track":
            raise ValueError("it is an export of a video; export `CVAT for images 1.1`")
        if self._above == ["annotations"] and name == "image":
            self._number += 1
            self._image, self._labels = attributes, {}
            self._required(attributes, "name")
        if self._above == ["annotations", "image"]:
            self.shapes += name in _SHAPES
            if name == "tag":
                self._labels[self._required(attributes, "label")] = None
        self._above.append(name)

    def end(self, name: str) -> None:
        self._above.pop()
        if self._above != ["annotations"] or name != "image":
            return
        if self._labels:
            split = self._image.get("subset") or None
            # What was not divided into subsets is exported as `default`.
            split = None if split == "default" else split
            places = places_of(self._image["name"])
            self.images.append(AnnotatedImage(places, list(self._labels), f"image {self._number}", split))
        else:
            self.unlabelled += 1

    def _required(self, attributes: dict[str, str], name: str) -> str:
        if not attributes.get(name):
            raise ValueError(f"image {self._number}: an element has no {name}")
        return attributes[name]
