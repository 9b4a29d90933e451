"""Time spans as people write them, such as `90s`, `30m` or `1h30m`."""

from __future__ import annotations

import re

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
# A number without a unit is seconds, but not right after hours: some write 1h30 for 1h30m.
_DURATION = re.compile(rf"(?:({_NUMBER})h(?!{_NUMBER}$))?(?:({_NUMBER})m)?(?:({_NUMBER})s?)?")


def seconds_of(text: str) -> float:
    """The seconds of a time span; raises `ValueError` with what to write instead."""
    match = _DURATION.fullmatch(text.strip().lower())
    parts = match.groups() if match else (0, 0, 0)
    seconds = sum(float(part or 0) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True))
    if seconds <= 0:
        raise ValueError("is not a duration; write it as 90s, 30m or 1h30m")
    return seconds
