"""Which folders Thaw wrote, so that the images in them never become data: a marker file in each.

Folders of releases without the marker, and parts of a folder that were copied without it, are recognised by files that
only Thaw writes.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from thaw.version import __version__

MARKER = "THAW.TAG"

_FILES_OF = (
    {MARKER},
    {"recipe.yaml", "manifest.parquet"},  # a run
    {"inspect.html", "inspect.json"},  # an inspection
    {"config.json", "labels.txt", "SHA256SUMS"},  # a bundle
    {"golden.json"},  # the images in a bundle
    {"seal.json"},  # an entry of the cache
)


def mark(folder: Path) -> None:
    """Write the marker into a folder that holds nothing but what Thaw writes."""
    text = f"Written by Thaw {__version__}. Images below this folder are left out of data sets and predictions.\n"
    (folder / MARKER).write_text(text, encoding="utf-8")


def mark_if_new(folder: Path) -> None:
    """Make a folder and mark it, unless it already holds something, which may be the user's."""
    folder.mkdir(parents=True, exist_ok=True)
    if next(folder.iterdir(), None) is None:
        mark(folder)


def is_written_by_thaw(names: Collection[str]) -> bool:
    """Whether a folder with these files was written by Thaw."""
    present = set(names)
    return any(files <= present for files in _FILES_OF)
