"""Sessions: images that were captured one after another, as their times tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from thaw.formats import duration

GAPS = (timedelta(hours=4), timedelta(minutes=30), timedelta(minutes=2), timedelta(seconds=10))
"""How far apart images of two sessions are, at least; from long sessions to short bursts."""


def sessions(moments: Sequence[datetime], devices: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """For each gap, what it means and the session of each image, named after its device and its first image.

    Args:
        moments: When each image was captured.
        devices: What captured it; images of two devices are never in one session.
    """
    order = sorted(range(len(moments)), key=lambda row: (devices[row], moments[row], row))
    for gap in GAPS:
        names = [""] * len(moments)
        first = before = order[0] if order else 0
        name = ""
        for row in order:
            if not name or devices[row] != devices[before] or moments[row] - moments[before] > gap:
                first = row
                name = f"{devices[first]} {moments[first].isoformat(' ', 'seconds')}".strip()
            names[row] = name
            before = row
        yield f"at most {duration(gap.total_seconds())} apart", names
