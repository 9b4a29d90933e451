"""What Thaw keeps between runs, decoded pixels and stored features: listed, cleared, held under a budget."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from thaw import atomic

Kind = Literal["pixels", "features"]
KINDS: tuple[Kind, ...] = ("pixels", "features")


@dataclass(frozen=True)
class CacheEntry:
    """One store: its size in bytes, when it was last used (seconds since 1970), and what it is, for people."""

    kind: Kind
    folder: Path
    size: int
    used: float
    about: str


def cache_folder() -> Path:
    """Where decoded pixels and stored features are kept between runs: $THAW_CACHE, or the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("THAW_CACHE") or Path(base) / "thaw")


def cache_entries(cache: Path) -> list[CacheEntry]:
    """Every store, the one that was used longest ago first."""
    return sorted(_find(cache), key=lambda item: item.used)


def clear(cache: Path, kinds: tuple[Kind, ...] = KINDS) -> list[CacheEntry]:
    """Remove every store of some kinds and what broken runs left of them; gives those that went.

    A run that is reading one keeps its files until it ends (POSIX); it makes anew what it needs later.
    """
    gone = [item for item in cache_entries(cache) if item.kind in kinds]
    for kind in kinds:
        shutil.rmtree(cache / kind, ignore_errors=True)
    return gone


def make_room(cache: Path, needed: int, budget: int) -> list[CacheEntry]:
    """Remove the stored features that were used longest ago until `needed` more bytes are within `budget`."""
    stores = [item for item in cache_entries(cache) if item.kind == "features"]
    total, gone = sum(item.size for item in stores), []
    for item in stores:
        if total + needed <= budget:
            break
        shutil.rmtree(item.folder, ignore_errors=True)
        total -= item.size
        gone.append(item)
    return gone


def _find(cache: Path) -> Iterator[CacheEntry]:
    for kind in KINDS:
        for folder in (cache / kind).glob("*") if (cache / kind).is_dir() else ():
            seal = folder / atomic.SEAL
            try:
                size = sum(file.stat().st_size for file in folder.iterdir())
                yield CacheEntry(kind, folder, size, seal.stat().st_mtime, _about(kind, folder))
            except OSError:
                continue


def _about(kind: Kind, folder: Path) -> str:
    try:
        story = json.loads((folder / "about.json").read_bytes())
        if kind == "pixels":
            return f"{story['images']} images of {story['root']}, {story['size']} px"
        return f"{story['views']} views of {story['images']} images, {story['backbone']} at {story['cut']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "not described"
