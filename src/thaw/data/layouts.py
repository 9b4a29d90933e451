"""Lists the images in folders, with the labels and splits that the folders define; nothing is decoded.

Supported layouts:

    ROOT/CLASS/**/IMAGE             folders below a class folder belong to that class
    ROOT/SPLIT/CLASS/**/IMAGE       SPLIT is one of train, val, valid, validation, test
    ROOT/metadata.{csv,jsonl,parquet} or ROOT/SPLIT/metadata.*     an image folder of the Hub; see `tables`
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from pathlib import Path

import pyarrow as pa

from thaw.data.manifest import new_table
from thaw.errors import DataError
from thaw.formats import count

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
TABLE_SUFFIXES = (".csv", ".parquet", ".jsonl")
METADATA_FILES = tuple(f"metadata{suffix}" for suffix in TABLE_SUFFIXES)
HIDDEN = "hidden"

_SHOWN = 3
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Rows:
    """The images of a folder or table.

    Attributes:
        table: A table with the manifest's schema; paths are relative to `root` or absolute.
        root: The folder of the data set.
        source: The folder or table.
        row_names: The name of each row in messages; empty for folders.
        ignored: (suffix, count) of other files, `hidden` for hidden ones.
    """

    table: pa.Table
    root: Path
    source: Path
    row_names: Sequence[str] = ()
    ignored: tuple[tuple[str, int], ...] = ()


def read_folder(root: Path) -> Rows:
    """The images of a folder with class folders, or with split folders that contain class folders, in natural order.

    Raises:
        DataError: The folder is missing, empty, or has another layout.
    """
    ignored: Counter[str] = Counter()
    images = []
    for path in _walk(_existing_folder(root), "", (), ignored):
        if (suffix := suffix_of(path)) in IMAGE_SUFFIXES:
            images.append(utf8(path))
        else:
            ignored[suffix] += 1
    if not images:
        raise DataError(f"{root}: no image in this folder{_other_files(ignored)}")
    depth = 1 if _has_splits(root, images) else 0
    outside = [path for path in images if path.count("/") <= depth]
    if outside:
        raise DataError(_outside_message(root, images, outside, depth))
    parts = [path.split("/", depth + 1) for path in images]
    splits = [SPLIT_WORDS[part[0].lower()] for part in parts] if depth else None
    table = new_table(images, [[part[depth]] for part in parts], splits)
    return Rows(table, root, root, ignored=tuple(sorted(ignored.items())))


def files_under(folder: Path, hidden: Counter[str]) -> Iterator[Path]:
    """All files below a folder, of any kind, in natural order; hidden files and folders are only counted.

    Lazy: only the names in the folders on the current path are in memory.
    """
    return (folder / path for path in _walk(_existing_folder(folder), "", (), hidden))


def suffix_of(path: str) -> str:
    """The suffix of a file name in lower case, such as ".png"; empty if it has none."""
    stem, dot, ending = path.rpartition("/")[2].rpartition(".")
    return (dot + ending).lower() if stem and ending else ""


def table_hint(place: Path) -> str:
    """A hint for the end of a message: a table in the folder that may contain the labels."""
    entries = place.iterdir() if place.is_dir() else ()
    tables = sorted(file.name for file in entries if file.suffix.lower() in TABLE_SUFFIXES)
    return f"; if {tables[0]} contains the labels, pass that file instead" if tables else ""


def metadata_files(root: Path) -> list[tuple[Path, str | None]]:
    """The Hub metadata files in a folder, or in its split folders with the split of each."""
    here = [root / name for name in METADATA_FILES if (root / name).is_file()]
    if here:
        return [(file, None) for file in here]
    folders = sorted(folder for folder in _existing_folder(root).iterdir() if folder.name.lower() in SPLIT_WORDS)
    return [
        (folder / name, SPLIT_WORDS[folder.name.lower()])
        for folder in folders
        for name in METADATA_FILES
        if (folder / name).is_file()
    ]


def natural_key(text: str) -> tuple[str, str]:
    """Sort key that orders numbers in text by value: class2 before class10."""
    pieces = _DIGITS.split(text)
    # Numbers are prefixed with their number of digits; a text sorts before its own extensions.
    numbers = [piece.lstrip("0") for piece in pieces[1::2]]
    pieces[1::2] = [f"\0{chr(len(number))}{number}" for number in numbers]
    return "".join(pieces), text


def utf8(path: str) -> str:
    """The path unchanged; raises `DataError` if it cannot be stored in tables and JSON files."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = path.encode("utf-8", "backslashreplace").decode("utf-8")
        raise DataError(f"{shown}: the file name is not valid UTF-8; rename it") from error
    return path


def _existing_folder(folder: Path) -> Path:
    if not folder.exists():
        raise DataError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise DataError(f"{folder}: is a file, not a folder of images")
    return folder


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...], hidden: Counter[str]) -> Iterator[str]:
    """Paths of the files below a folder, prefixed, in natural order; counts the hidden ones, which it leaves out.

    `above` are the parent folders, to which a link may lead back.
    """
    try:
        status = folder.stat()
        with os.scandir(folder) as entries:
            names = [name for entry in entries if (name := _name_of(entry, hidden))]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    names.sort(key=natural_key)
    for _, equivalent in groupby(names, key=_order_key):
        below = [_below(folder, name, prefix, (*above, here), hidden) for name in equivalent]
        yield from below[0] if len(below) == 1 else merge(*below, key=natural_key)


def _below(
    folder: Path, name: str, prefix: str, above: tuple[tuple[int, int], ...], hidden: Counter[str]
) -> Iterable[str]:
    """The file of this name, or the files in the folder of this name."""
    return _walk(folder / name, prefix + name, above, hidden) if name.endswith("/") else (prefix + name,)


def _name_of(entry: os.DirEntry[str], hidden: Counter[str]) -> str:
    """The name of a file, or of a folder with a slash appended; a hidden one is counted and gives ""."""
    if entry.name.startswith("."):
        hidden[HIDDEN] += 1
        return ""
    return f"{entry.name}/" if entry.is_dir() else entry.name


def _order_key(name: str) -> str:
    """Equal for folders whose names differ only in leading zeros, whose images are interleaved (1/a, 01/b, 1/c)."""
    return natural_key(name)[0] if name.endswith("/") else name


def _has_splits(root: Path, images: Sequence[str]) -> bool:
    """Whether the folders below the root are splits; raises `DataError` if only some of them are."""
    folders = dict.fromkeys(path.split("/", 1)[0] for path in images if "/" in path)
    splits = [name for name in folders if name.lower() in SPLIT_WORDS]
    others = [name for name in folders if name.lower() not in SPLIT_WORDS]
    if any(SPLIT_WORDS[name.lower()] == "train" for name in splits) and others:
        raise DataError(
            f"{root}: contains {_listed(others)} as well as {_listed(splits)}, but either all folders must be splits "
            "(train, val, test) or all must be classes; move or rename the others"
        )
    return bool(splits) and not others


def _outside_message(root: Path, images: Sequence[str], outside: Sequence[str], depth: int) -> str:
    if len(outside) < len(images):
        found = count(len(outside), "image")
        return f"{root}: {found} outside the class folders ({_listed(outside)}); move or remove them"
    where = "split folders have" if depth else "folder has"
    hint = table_hint(root)
    return f"{root}: the {where} no class folders; put the images of each class into a folder named after it{hint}"


def _other_files(ignored: Counter[str]) -> str:
    if not ignored:
        return "; it is empty"
    kinds = ", ".join(f"{files} {suffix or 'without suffix'}" for suffix, files in ignored.most_common(_SHOWN))
    return f", only {kinds}; supported are {', '.join(sorted(IMAGE_SUFFIXES))}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
