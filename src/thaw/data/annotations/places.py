"""Where an image of an export may be: annotation tools name it by their own storage, not by the user's folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
"""What Label Studio puts before the name of an uploaded file."""


def places_of(name: str) -> list[str]:
    """The paths at which an image may be, the most likely one first.

    They are the name itself, and then its ends without the first folders: `/data/upload/1/photo.png` is looked for as
    `data/upload/1/photo.png`, `upload/1/photo.png` and so on. Of an address its path is taken.
    """
    path = _path_in(name)
    parts = [part for part in PurePosixPath(path.replace("\\", "/")).parts if part != "/"]
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    uploaded = [_UPLOADED.sub("", parts[-1], count=1)] if parts else []
    return list(dict.fromkeys([path, *ends, *uploaded]))


def found_place(places: Sequence[str], exists: Callable[[str], bool]) -> str:
    """The first of some places that exists, or the first of all where none does."""
    return next((place for place in places if exists(place)), places[0])


def _path_in(name: str) -> str:
    """The path in an address, or in the query of Label Studio's local files; any other name as it is."""
    if not name.startswith("/data/local-files") and "://" not in name:
        return name
    address = urlsplit(name)
    local = parse_qs(address.query).get("d")
    return local[0] if local else unquote(address.path).lstrip("/") or name
