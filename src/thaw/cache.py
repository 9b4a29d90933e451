"""The cache of decoded pixels and extracted features: listed, cleared, and kept within a budget."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from thaw import atomic
from thaw.formats import count

Kind = Literal["pixels", "features"]
KINDS: tuple[Kind, ...] = ("pixels", "features")


@dataclass(frozen=True)
class CacheEntry:
    """One folder of the cache.

    Attributes:
        kind: "pixels" or "features".
        folder: Where it is.
        size: Bytes on disk.
        last_used: Seconds since 1970.
        description: What it contains, for display.
    """

    kind: Kind
    folder: Path
    size: int
    last_used: float
    description: str


def cache_folder() -> Path:
    """The folder of the cache: $THAW_CACHE, or `thaw` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("THAW_CACHE") or Path(base) / "thaw")


def cache_entries(cache: Path) -> list[CacheEntry]:
    """Every entry of a cache, least recently used first."""
    return sorted(_find(cache), key=lambda entry: entry.last_used)


def clear(cache: Path, kinds: tuple[Kind, ...] = KINDS) -> list[CacheEntry]:
    """Remove every entry of some kinds, and leftovers of killed runs.

    A run that is reading an entry keeps its open files until it ends (POSIX), and rebuilds what it needs later.

    Returns:
        The removed entries.
    """
    removed = [entry for entry in cache_entries(cache) if entry.kind in kinds]
    for kind in kinds:
        shutil.rmtree(cache / kind, ignore_errors=True)
    return removed


def make_room(cache: Path, needed: int, budget: int) -> list[CacheEntry]:
    """Remove least recently used features until `needed` more bytes fit into `budget`; returns the removed entries."""
    entries = [entry for entry in cache_entries(cache) if entry.kind == "features"]
    total, removed = sum(entry.size for entry in entries), []
    for entry in entries:
        if total + needed <= budget:
            break
        shutil.rmtree(entry.folder, ignore_errors=True)
        total -= entry.size
        removed.append(entry)
    return removed


def _find(cache: Path) -> Iterator[CacheEntry]:
    for kind in KINDS:
        for folder in (cache / kind).glob("*") if (cache / kind).is_dir() else ():
            seal = folder / atomic.SEAL
            try:
                size = sum(file.stat().st_size for file in folder.iterdir())
                yield CacheEntry(kind, folder, size, seal.stat().st_mtime, _description(kind, folder))
            except OSError:
                continue


def _description(kind: Kind, folder: Path) -> str:
    try:
        about = json.loads((folder / "about.json").read_bytes())
        images = count(about["images"], "image")
        if kind == "pixels":
            return f"{images} of {about['root']}, {about['size']} px"
        return f"{count(about['views'], 'view')} of {images}, {about['backbone']} at {about['cut']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "no description"
