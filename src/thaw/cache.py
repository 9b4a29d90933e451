"""The cache of decoded pixels, extracted features and mirrors: listed, cleared, and kept within a budget."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile, mkdtemp
from typing import Any, Literal
from urllib.parse import unquote

from thaw import atomic
from thaw.errors import WriteError
from thaw.formats import count
from thaw.temporary import discard, remove_leftovers
from thaw.writing import check_writable, explained, failure, is_full

Kind = Literal["pixels", "features", "remote"]
KINDS: tuple[Kind, ...] = ("pixels", "features", "remote")
MIRRORS: Kind = "remote"
MIRROR_INDEX = "index.jsonl"
"""File of a mirror of remote storage with one line for each file that it has."""

ATTEMPTS = 3
"""How often an entry is made that is removed, by `thaw cache clear` or a full budget, before it is opened."""
_IN_USE = 24 * 3600
"""Seconds for which decoded images may be read by the run that used them last."""
LARGER_DISK = ", or set THAW_CACHE to a folder on a larger disk"


@dataclass(frozen=True)
class CacheEntry:
    """One folder of the cache.

    Attributes:
        kind: "pixels", "features", or "remote" for a mirror of remote storage.
        folder: Where it is.
        size: Bytes on disk.
        last_used: Seconds since 1970.
    """

    kind: Kind
    folder: Path
    size: int
    last_used: float

    @property
    def description(self) -> str:
        """What it contains, for display, read from its files."""
        return _description(self.kind, self.folder)


def configured_folder() -> Path:
    """$THAW_CACHE, or `thaw` in the user's cache folder; raises `WriteError` for a user without a home folder."""
    if chosen := os.environ.get("THAW_CACHE"):
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "thaw"
    try:
        return Path.home() / ".cache" / "thaw"
    except RuntimeError as error:
        problem = "cannot be found, because this user has no home folder; set THAW_CACHE to a folder"
        raise WriteError("the cache", problem) from error


def cache_folder() -> Path:
    """The folder of the cache; where it cannot be written, a temporary one until this process ends, and a line says so.

    Raises:
        WriteError: Neither can be written.
    """
    try:
        return _usable(configured_folder())
    except WriteError as error:
        return _temporary_cache(str(error))


def cache_entries(cache: Path, kinds: Sequence[Kind] = KINDS) -> list[CacheEntry]:
    """Every entry of some kinds, least recently used first; of other kinds no file is read."""
    return sorted(_find(cache, kinds), key=lambda entry: entry.last_used)


def clear(cache: Path, kinds: tuple[Kind, ...] = KINDS) -> list[CacheEntry]:
    """Remove every entry of some kinds, and leftovers of killed runs.

    A run goes on: it keeps the files that it reads open (POSIX) and what it is writing or has just written, and
    rebuilds what it needs later.

    Returns:
        The removed entries.

    Raises:
        WriteError: Some cannot be removed; all others were.
    """
    entries = cache_entries(cache, kinds)
    left: list[Path] = []
    for kind in kinds:
        left += remove_leftovers(cache / kind)
        left += filter(None, map(discard, (cache / kind).glob("[!.]*")))
    check_removed(left)
    return [entry for entry in entries if not entry.folder.exists()]


def check_removed(left: Sequence[Path]) -> None:
    """Raise `WriteError` that names what is left of entries that were to be removed."""
    if left:
        others = (
            f", and {count(len(left) - 1, 'other entry', 'other entries')} of the cache neither" if left[1:] else ""
        )
        reader = "a run or Studio may be reading it, else " if sys.platform == "win32" else ""
        raise WriteError(left[0], f"cannot be removed{others}; {reader}remove it as the user who wrote it")


def recall(cache: Path, name: str, key: str) -> Any | None:
    """What `remember` kept under a key in the file `name` of the cache; `None` where it is absent or damaged."""
    try:
        return json.loads((cache / name).read_bytes())[key]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(cache: Path, name: str, key: str, value: Any) -> None:
    """Keep a plain value for `recall`; when two runs write at once, or the disk is full, one value is lost."""
    try:
        known = json.loads((cache / name).read_bytes())
    except (OSError, ValueError):
        known = {}
    known = known if isinstance(known, dict) else {}
    with suppress(OSError, WriteError):
        cache.mkdir(parents=True, exist_ok=True)
        atomic.write_text(cache / name, json.dumps({**known, key: value}, indent=1))


def make_room(cache: Path, needed: int, budget: int, kept: Iterable[str] = ()) -> list[CacheEntry]:
    """Remove least recently used features until `needed` more bytes fit into `budget`; returns the removed entries.

    Those whose names begin with one of `kept` stay, even where they exceed the budget.
    """
    return _make_room(cache_entries(cache, ("features",)), needed, budget, tuple(kept))


def limit_pixels(cache: Path, kept: str) -> list[CacheEntry]:
    """Remove least recently used decoded images until they take as many bytes as stay free on the disk at most.

    What was used in the last day stays, as a run may read it, and so does the entry of the name `kept`.

    Returns:
        The removed entries.
    """
    entries = cache_entries(cache, ("pixels",))
    budget = (shutil.disk_usage(cache).free + sum(entry.size for entry in entries)) // 2
    in_use = [entry.folder.name for entry in entries if time.time() - entry.last_used < _IN_USE]
    removed = _make_room(entries, 0, budget, (kept, *in_use))
    for entry in removed:
        # Its near-duplicates.
        for file in entry.folder.parent.glob(f"{entry.folder.name}.*.json"):
            discard(file)
    return removed


def _make_room(entries: Sequence[CacheEntry], needed: int, budget: int, names: tuple[str, ...]) -> list[CacheEntry]:
    total, removed = sum(entry.size for entry in entries), []
    for entry in entries:
        if total + needed <= budget:
            break
        if entry.folder.name.startswith(names):
            continue
        if discard(entry.folder) is None and not entry.folder.exists():
            total -= entry.size
            removed.append(entry)
    return removed


@functools.cache
def _usable(folder: Path) -> Path:
    """A folder, made if needed; raises `WriteError` where files cannot be made in it or in its parts."""
    check_writable(folder)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for part in (folder, *(folder / kind for kind in KINDS)):
        if part.exists():
            try:
                TemporaryFile(dir=part).close()
            except OSError as error:
                # On a full disk what is there can still be read, and what needs room says how much.
                if not is_full(error):
                    raise failure(part, error) from error
    return folder


@functools.cache
def _temporary_cache(problem: str) -> Path:
    """A folder that is removed when this process ends."""
    try:
        folder = mkdtemp(prefix="thaw-cache-")
    except OSError as error:
        reason = f"{problem}, and there is no temporary folder; set THAW_CACHE to a folder that can be written"
        raise WriteError("the cache", reason) from error
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    print(f"thaw: {problem.partition(';')[0]}; using the temporary cache {folder} this time", file=sys.stderr)
    return Path(folder)


def _find(cache: Path, kinds: Sequence[Kind]) -> Iterator[CacheEntry]:
    for kind in kinds:
        for folder in (cache / kind).glob("*") if (cache / kind).is_dir() else ():
            used = folder / (MIRROR_INDEX if kind == MIRRORS else atomic.SEAL)
            try:
                size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                yield CacheEntry(kind, folder, size, used.stat().st_mtime)
            except OSError:
                continue


def _description(kind: Kind, folder: Path) -> str:
    try:
        if kind == MIRRORS:
            scheme, _, host = folder.name.partition("-")
            files = sum(file.is_file() for file in (folder / "files").rglob("*"))
            return f"{count(files, 'file')} of {scheme}://{unquote(host)}"
        about = json.loads((folder / "about.json").read_bytes())
        images = count(about["images"], "image")
        if kind == "pixels":
            return f"{images} of {about['root']}, {about['size']} px"
        return f"{_view(about)} of {images}, {about['backbone']} at {about['cut']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "no description"


def _view(about: Mapping[str, Any]) -> str:
    """Which view an entry has, or how many, as earlier versions wrote them."""
    if "views" in about:
        return count(about["views"], "view")
    return f"view {about['view']}" if about["view"] else "the plain view"
