"""Which files are classified: those given, and in given folders those that may be images; the rest is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from thaw.data.layouts import TABLE_SUFFIXES
from thaw.data.walk import HIDDEN, IMAGE_SUFFIXES, Omitted, files_below, printable, suffix_of, utf8
from thaw.errors import DataError
from thaw.formats import count

_OTHER_FORMATS = (
    "apng arw avif cr2 cr3 cur dcm dds dib dicom dng emf eps exr fit fits gif hdr heic heif hif icns ico j2c j2k "
    "jif jls jp2 jpf jpx jxl jxr mpo nef nrw orf pbm pcx pef pgm pjp pjpeg pnm ppm psd qoi raf raw rw2 sgi sr2 srw "
    "svg svgz tga wdp wmf xbm xpm"
)
CANDIDATES = IMAGE_SUFFIXES | {""} | {f".{name}" for name in _OTHER_FORMATS.split()}
"""Suffixes of the files in a folder that get a row: those of images, of which most other formats become error rows, and
none at all."""
_NOT_IMAGES = frozenset((*TABLE_SUFFIXES, ".xls", ".xlsx", ".ods", ".json", ".txt", ".pdf", ".zip", ".tar", ".gz"))
_SHOWN = 3


@dataclass
class LeftOut:
    """What gets no row: files, how many of each kind and the first few by name, and remarks on folders."""

    kinds: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    def add(self, file: Path) -> None:
        """Count a file."""
        self.kinds[suffix_of(file.name)] += 1
        if len(self.first) < _SHOWN:
            self.first.append(printable(file))

    def merge(self, other: LeftOut) -> None:
        """Count the files of another folder."""
        self.kinds.update(other.kinds)
        self.first = [*self.first, *other.first][:_SHOWN]
        self.folders += other.folders

    @property
    def sentences(self) -> list[str]:
        """What was left out, for the user."""
        return [*([self._files()] if self.kinds else []), *self.folders]

    def _files(self) -> str:
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


def _is_folder(place: Path) -> bool:
    try:
        place.lstat()
        return place.is_dir()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise DataError(f"{printable(place)}: no such file or folder") from error
    except OSError as error:
        raise DataError(f"{printable(place)}: cannot be read: {error.strerror}") from error


def _images_in(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    omitted, images = Omitted(), 0
    here = LeftOut(omitted.files)
    for path in files_below(folder, omitted):
        if suffix_of(path) in CANDIDATES:
            images += 1
            yield folder / path
        else:
            here.add(folder / path)
    if not images:
        what = "; ".join((*here.sentences, *omitted.notes())) or "it is empty"
        raise DataError(f"{folder}: no image in this folder; {what}")
    here.folders += (f"{folder}: {note}" for note in omitted.notes())
    left_out.merge(here)
