"""Which files are classified: those given, and in given folders those that may be images; the rest is named."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from thaw.data.layouts import HIDDEN, IMAGE_SUFFIXES, TABLE_SUFFIXES, files_under, suffix_of, utf8
from thaw.errors import DataError
from thaw.formats import count

_OTHER_FORMATS = (
    "apng arw avif cr2 cr3 cur dcm dds dib dicom dng emf eps exr fit fits gif hdr heic heif hif icns ico j2c j2k jfif "
    "jif jls jp2 jpe jpf jpx jxl jxr mpo nef nrw orf pbm pcx pef pgm pjp pjpeg pnm ppm psd qoi raf raw rw2 sgi sr2 srw "
    "svg svgz tga wdp wmf xbm xpm"
)
CANDIDATES = IMAGE_SUFFIXES | {""} | {f".{name}" for name in _OTHER_FORMATS.split()}
"""Suffixes of the files in a folder that get a row: those of images, of which most other formats become error rows, and
none at all."""
_NOT_IMAGES = frozenset(
    (*TABLE_SUFFIXES, ".tsv", ".xls", ".xlsx", ".ods", ".json", ".txt", ".pdf", ".zip", ".tar", ".gz")
)
_SHOWN = 3


@dataclass
class LeftOut:
    """Files in the given folders that get no row: how many of each kind, and the first few by name."""

    kinds: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)

    def add(self, file: Path) -> None:
        """Count a file."""
        self.kinds[suffix_of(file.name)] += 1
        if len(self.first) < _SHOWN:
            self.first.append(printable(file))

    def merge(self, other: LeftOut) -> None:
        """Count the files of another folder."""
        self.kinds.update(other.kinds)
        self.first = [*self.first, *other.first][:_SHOWN]

    @property
    def sentence(self) -> str:
        """What was left out, for the user; empty if nothing was."""
        if not self.kinds:
            return ""
        kinds = [f"{files:,} {kind}" for kind, files in self.kinds.most_common()]
        if len(kinds) > _SHOWN:
            kinds[_SHOWN:] = [count(len(kinds) - _SHOWN, "other kind")]
        unnamed = self.kinds.total() - self.kinds[HIDDEN] - len(self.first)
        names = ", ".join([*self.first, *([f"{unnamed:,} more"] if unnamed else [])])
        left_out = f"left out {count(self.kinds.total(), 'file')}: {', '.join(kinds)}"
        return f"{left_out} ({names})" if names else left_out


def files_at(places: Sequence[Path], left_out: LeftOut | None = None) -> Iterator[Path]:
    """The given files and all files in the given folders that may be images, in a fixed order.

    Args:
        places: Files, which may have any name, and folders.
        left_out: Counts the other files in the folders.

    Raises:
        DataError: A place does not exist, or is a folder without images.
    """
    left_out = left_out or LeftOut()
    for place in places:
        if _is_folder(place):
            utf8(str(place))
            yield from _images_in(place, left_out)
        else:
            yield place


def check_places(places: Sequence[Path]) -> None:
    """Raise `DataError` if there is nothing to classify, without reading any file."""
    for place in places:
        next(files_at([place]))
    others = [place for place in places if suffix_of(place.name) in _NOT_IMAGES and not place.is_dir()]
    if others and len(others) == len(places):
        raise DataError(
            f"{printable(others[0])}: a {suffix_of(others[0].name)} file is not an image; give image files, or folders "
            "that contain them"
        )


def printable(path: Path) -> str:
    r"""The path as text, in which bytes that are not valid UTF-8 are escaped, such as \xe9."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _is_folder(place: Path) -> bool:
    try:
        place.lstat()
        return place.is_dir()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise DataError(f"{printable(place)}: no such file or folder") from error
    except OSError as error:
        raise DataError(f"{printable(place)}: cannot be read: {error.strerror}") from error


def _images_in(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    here, images = LeftOut(), 0
    for file in files_under(folder, here.kinds):
        if suffix_of(file.name) in CANDIDATES:
            images += 1
            yield file
        else:
            here.add(file)
    if not images:
        raise DataError(f"{folder}: no image in this folder; {here.sentence or 'it is empty'}")
    left_out.merge(here)
