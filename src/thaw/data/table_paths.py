"""The paths in a table against the names on disk.

The same file may be spelled differently in a table that was made on another system: macOS decomposes accented letters,
Windows takes any case and separates folders by a backslash. A path that does not exist is matched to the one file
that it can mean.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from thaw.data.class_names import normalised
from thaw.data.walk import IMAGE_SUFFIXES, suffix_of
from thaw.errors import DataError
from thaw.formats import count
from thaw.remote import host_of, is_remote, local_path, shown


def below_one_folder(table: Path, root: Path, paths: Sequence[str]) -> tuple[Path, list[str]]:
    """Paths in a table, of which some are addresses such as s3://bucket/a.png, relative to one folder.

    Args:
        table: The table.
        root: What paths are relative to.
        paths: The paths.

    Returns:
        The folder and the paths: the given ones, or for addresses the folder that the mirrors of all files are in.

    Raises:
        DataError: The files are not all on one storage.
    """
    has_addresses, host = any(map(is_remote, paths)), shown(root)
    if not has_addresses and not is_remote(host):
        return root, list(paths)
    copies = [Path(os.path.normpath(local_path(path) if is_remote(path) else root / path)) for path in paths]
    host = shown(copies[0]) if has_addresses else host
    for path, copy in zip(paths, copies, strict=True):
        if not is_remote(shown(copy)) or host_of(shown(copy)) != host_of(host):
            raise DataError(f"{table}: names {shown(copies[0])} and {path}; keep all files of a table on one storage")
    folder = Path(os.path.commonpath([copy.parent for copy in copies])) if has_addresses else root
    return folder, [Path(os.path.relpath(copy, folder)).as_posix() for copy in copies]


class Folders:
    """The folders that a table names, each listed once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listings: dict[str, _Listing] = {}

    def matched(self, paths: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
        """The paths as they are spelled on disk, and a remark if some were spelled differently.

        A path that matches no file, or several, stays as it is.
        """
        found = [path if self._exists(path) else self._spelled_on_disk(path) for path in paths]
        changed = [(path, real) for path, real in zip(paths, found, strict=True) if path != real]
        if not changed:
            return found, ()
        path, real = changed[0]
        # In ASCII where only the form of letters differs, which cannot be seen.
        shown = ascii if normalised(path) == normalised(real) else str
        example = f"for example {shown(path)}, which is {shown(real)}"
        what = f"{count(len(changed), 'path')} spelled otherwise than on disk (case, accents, separators or suffix)"
        return found, (f"{what}, {example}",)

    def images_next_to(self, paths: Iterable[str]) -> set[str]:
        """Paths of the images in the same folders as these paths, without hidden files."""
        return {
            folder + name
            for folder in {_folder(path) for path in paths}
            for name in self._listing(folder).names
            if is_image(name)
        }

    def _exists(self, path: str) -> bool:
        folder = _folder(path)
        return path[len(folder) :] in self._listing(folder).names

    def _spelled_on_disk(self, path: str) -> str:
        """The spelling of a path on disk, found folder by folder."""
        spelled = Path(path.replace("\\", "/"))
        found = spelled.anchor.replace("\\", "/")
        for part in spelled.relative_to(spelled.anchor).parts:
            name = part if part == ".." else self._listing(found).match(part)
            if name is None:
                return path
            found += f"{name}/"
        return found.removesuffix("/")

    def _listing(self, folder: str) -> _Listing:
        if folder not in self._listings:
            try:
                with os.scandir(self._root / folder) as entries:
                    names = frozenset(entry.name for entry in entries)
            except OSError:
                names = frozenset()
            self._listings[folder] = _Listing(names)
        return self._listings[folder]


class _Listing:
    """The names in a folder."""

    def __init__(self, names: frozenset[str]) -> None:
        self.names = names

    def match(self, name: str) -> str | None:
        """The one name that differs from another at most in case, the form of accents, and the suffix of an image."""
        if name in self.names:
            return name
        similar = self._by_key.get(_key(name)) or self._by_stem.get(_key(name), [])
        similar = [other for other in similar if normalised(name) in (normalised(other), _stem(other))] or similar
        return similar[0] if len(similar) == 1 else None

    @cached_property
    def _by_key(self) -> dict[str, list[str]]:
        by_key: defaultdict[str, list[str]] = defaultdict(list)
        for name in self.names:
            by_key[_key(name)].append(name)
        return by_key

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        """Images by their names without suffix, as in tables of identifiers."""
        by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for name in self.names:
            if is_image(name):
                by_stem[_key(_stem(name))].append(name)
        return by_stem


def is_image(name: str) -> bool:
    """Whether a file of this name is read as an image."""
    return not name.startswith(".") and suffix_of(name) in IMAGE_SUFFIXES


def _stem(name: str) -> str:
    return normalised(Path(name).stem)


def _folder(path: str) -> str:
    """The folder in a path with forward slashes, with the slash at its end."""
    return path[: path.rfind("/") + 1]


def _key(name: str) -> str:
    return normalised(name).casefold()
