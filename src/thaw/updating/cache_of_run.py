"""What the cache holds of a run: decoded images and features of its images, and of no others.

An update finds the features of its run there; who must not keep the images must not keep these either.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from thaw import parquet
from thaw.bundle_path import CONFIG
from thaw.cache import CacheEntry, cache_entries, check_removed
from thaw.data.geometry import PixelSpec
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import ROWS, key_of_store
from thaw.errors import DataError, ThawError
from thaw.run_folder import RunFolder
from thaw.temporary import discard


def entries_of_run(run: RunFolder, cache: Path) -> list[CacheEntry]:
    """The pixels of images that are all images of the run, in any size, and the features extracted from them.

    Raises:
        DataError: There is no such run.
    """
    if not run.manifest.is_file():
        raise DataError(f"{run.path}: {'is not a run folder' if run.path.exists() else 'there is no such run'}")
    manifest, entries = Manifest.read(run.manifest), cache_entries(cache, ("pixels", "features"))
    own = set(manifest.column("sha256")) - {None}
    stores = [entry for entry in entries if entry.kind == "pixels" and _has_only(entry.folder, own)]
    keys = {entry.folder.name for entry in stores} | _keys_of_parts(run, manifest)
    features = [entry for entry in entries if entry.kind == "features" and _pixels_of(entry.folder) in keys]
    return [*stores, *features]


def clear_run(run: RunFolder, cache: Path) -> list[CacheEntry]:
    """Remove what the cache holds of a run, and nothing else; returns the removed entries.

    Raises:
        DataError: There is no such run.
        WriteError: Some entries cannot be removed; all others were.
    """
    entries = entries_of_run(run, cache)
    left: list[Path] = []
    for entry in entries:
        # Also the pairs of rows that are near-duplicates.
        own = [entry.folder, *entry.folder.parent.glob(f"{entry.folder.name}.*.json")]
        left += filter(None, map(discard, own))
    check_removed(left)
    return [entry for entry in entries if not entry.folder.exists()]


def _has_only(store: Path, digests: set[str]) -> bool:
    """Whether every image of a pixel store has one of some digests."""
    try:
        found = set(parquet.read_table(store / ROWS).column("sha256").to_pylist()) - {None}
    except (OSError, ValueError, KeyError):
        return False
    return bool(found) and found <= digests


def _keys_of_parts(run: RunFolder, manifest: Manifest) -> set[str]:
    """The keys of the run's own pixel stores, which may have been removed from the cache before their features."""
    if update := run.read_update():
        return {part.pixels for part in update.parts}
    with suppress(ThawError):
        if (plan := run.read_plan()) and plan.pixels:
            return {plan.pixels}
    # A run that was stopped has no bundle yet, and no recipe before its plan.
    with suppress(OSError, ValueError, KeyError, TypeError, ThawError):
        config: dict[str, Any] = json.loads((run.model / CONFIG).read_bytes())
        spec = PixelSpec.from_json(config["thaw"]["facts"]["pixels"])
        return {key_of_store(manifest, spec, run.read_recipe().decode)}
    return set()


def _pixels_of(features: Path) -> str:
    """The key of the pixel store that features were extracted from; empty where that is not known."""
    try:
        return str(json.loads((features / "about.json").read_bytes())["key"]["pixels"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
