"""What is on disk, as rows: which images there are, and what their folders say of them. Nothing is decoded.

Layouts of a folder:

    ROOT/CLASS/**/IMAGE             folders below a class folder count to that class
    ROOT/SPLIT/CLASS/**/IMAGE       SPLIT is one of train, val, valid, validation, test
    ROOT/metadata.{csv,jsonl,parquet} or ROOT/SPLIT/metadata.*     the Hub's image folder; see `tables`
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

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
TABLE_SUFFIXES = (".csv", ".parquet", ".jsonl")
METADATA_FILES = tuple(f"metadata{suffix}" for suffix in TABLE_SUFFIXES)
HIDDEN = "hidden"

_SHOWN = 3
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Rows:
    """Images as found: a table with the manifest's schema, whose paths are relative to `root` or absolute.

    source is the folder or table they were found in. places: what to call each row when something is wrong
    with it; empty for folders. ignored: (suffix, count) of other files, `hidden` for hidden ones.
    """

    table: pa.Table
    root: Path
    source: Path
    places: Sequence[str] = ()
    ignored: tuple[tuple[str, int], ...] = ()


def read_folder(root: Path) -> Rows:
    """Rows of a folder with class folders, or with split folders that hold class folders, in natural order.

    Raises `DataError` when it is missing, empty, or laid out in another way.
    """
    ignored: Counter[str] = Counter()
    images = list(_walk(_existing_folder(root), "", (), ignored))
    if not images:
        raise DataError(f"{root}: there is no image in this folder{_other_files(ignored)}")
    depth = 1 if _has_splits(root, images) else 0
    loose = [path for path in images if path.count("/") <= depth]
    if loose:
        raise DataError(_loose_sentence(root, images, loose, depth))
    parts = [path.split("/", depth + 1) for path in images]
    splits = [SPLIT_WORDS[part[0].lower()] for part in parts] if depth else None
    table = new_table(images, [[part[depth]] for part in parts], splits)
    return Rows(table, root, root, ignored=tuple(sorted(ignored.items())))


def images_under(folder: Path) -> Iterator[Path]:
    """Every image file below a folder, in natural order; hidden files and folders are left out.

    Found one folder after the other: what is in memory is the names in the folders on the way, never the whole list.
    """
    return (folder / path for path in _walk(_existing_folder(folder), "", (), Counter()))


def table_hint(place: Path) -> str:
    """The end of a sentence that points at a table in a folder which may say what the folders do not."""
    entries = place.iterdir() if place.is_dir() else ()
    tables = sorted(file.name for file in entries if file.suffix.lower() in TABLE_SUFFIXES)
    return f"; if {tables[0]} says which class each image has, give that file instead" if tables else ""


def metadata_files(root: Path) -> list[tuple[Path, str | None]]:
    """The Hub metadata files in a folder, or in its split folders, with the split that each stands for."""
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
    """Sorts numbers within text by value: class2 before class10."""
    pieces = _DIGITS.split(text)
    # A number is led by how many digits it has; the end of a text sorts before whatever another one goes on with.
    numbers = [piece.lstrip("0") for piece in pieces[1::2]]
    pieces[1::2] = [f"\0{chr(len(number))}{number}" for number in numbers]
    return "".join(pieces), text


def utf8(path: str) -> str:
    """A path as it is; raises `DataError` for one that no table and no JSON file could hold."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = path.encode("utf-8", "backslashreplace").decode("utf-8")
        raise DataError(f"{shown}: the name of this file is not valid UTF-8; rename it") from error
    return path


def _existing_folder(folder: Path) -> Path:
    if not folder.exists():
        raise DataError(f"{folder}: there is no such folder")
    if not folder.is_dir():
        raise DataError(f"{folder}: is a file; give a folder of images")
    return folder


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...], ignored: Counter[str]) -> Iterator[str]:
    """Images below a folder, in natural order of their paths, each led by `prefix`; counts what it passes over.

    `above` are the folders on the way, which a link may lead back to.
    """
    try:
        status = folder.stat()
        with os.scandir(folder) as entries:
            names = [name for entry in entries if (name := _name_of(entry, ignored))]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    names.sort(key=natural_key)
    for _, alike in groupby(names, key=_place):
        below = [_below(folder, name, prefix, (*above, here), ignored) for name in alike]
        yield from below[0] if len(below) == 1 else merge(*below, key=natural_key)


def _below(
    folder: Path, name: str, prefix: str, above: tuple[tuple[int, int], ...], ignored: Counter[str]
) -> Iterable[str]:
    """The one image of this name, or the images in the folder of this name."""
    if name.endswith("/"):
        return _walk(folder / name, prefix + name, above, ignored)
    return (utf8(prefix + name),)


def _name_of(entry: os.DirEntry[str], ignored: Counter[str]) -> str:
    """The name of an image, or of a folder with a slash behind it; for anything else nothing, and it is counted."""
    _, dot, ending = entry.name.rpartition(".")
    suffix = (dot + ending).lower() if dot and ending else ""
    if entry.name.startswith("."):
        ignored[HIDDEN] += 1
    elif entry.is_dir():
        return f"{entry.name}/"
    elif suffix in IMAGE_SUFFIXES:
        return entry.name
    else:
        ignored[suffix] += 1
    return ""


def _place(name: str) -> str:
    """Equal for folders whose names differ in leading zeros alone: their images take turns (1/a, 01/b, 1/c)."""
    return natural_key(name)[0] if name.endswith("/") else name


def _has_splits(root: Path, images: Sequence[str]) -> bool:
    """Whether the folders below the root are splits; raises `DataError` when only some of them are."""
    folders = dict.fromkeys(path.split("/", 1)[0] for path in images if "/" in path)
    splits = [name for name in folders if name.lower() in SPLIT_WORDS]
    others = [name for name in folders if name.lower() not in SPLIT_WORDS]
    if any(SPLIT_WORDS[name.lower()] == "train" for name in splits) and others:
        raise DataError(
            f"{root}: {_listed(others)} beside {_listed(splits)}: either every folder is a split "
            "(train, val, test) or every folder is a class; move or rename the others"
        )
    return bool(splits) and not others


def _loose_sentence(root: Path, images: Sequence[str], loose: Sequence[str], depth: int) -> str:
    if len(loose) < len(images):
        what = "image lies" if len(loose) == 1 else "images lie"
        return f"{root}: {len(loose)} {what} outside the class folders ({_listed(loose)}); move or remove them"
    where = "split folders have" if depth else "folder has"
    hint = table_hint(root)
    return f"{root}: the {where} no class folders; put the images of each class into a folder of its name{hint}"


def _other_files(ignored: Counter[str]) -> str:
    if not ignored:
        return "; it is empty"
    kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in ignored.most_common(_SHOWN))
    return f", only {kinds}; images end in {', '.join(sorted(IMAGE_SUFFIXES))}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
