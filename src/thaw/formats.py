"""Numbers as text, the same in the console, on pages and in model cards."""

from __future__ import annotations

from collections.abc import Sequence

MANY = 10
"""Names shown where a person with few classes should see all of them."""

_ROUNDING = 1e-9
"""How far computing may take a fraction from 0 or 1 that is exactly that."""


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction 0..1 as `84.8%`; one that is not exactly 0 or 1 never reads as if it were, but as `<0.1%` or `>99.9%`.

    The same is in `percent.js` and in Studio's `charts.js`.
    """
    least = 10.0**-digits
    if _ROUNDING < fraction < 1 - _ROUNDING:
        if 100 * fraction <= least / 2 + _ROUNDING:
            return f"<{least:.{digits}f}%"
        if 100 * (1 - fraction) <= least / 2 + _ROUNDING:
            return f">{100 - least:.{digits}f}%"
    return f"{100 * fraction:.{digits}f}%"


def interval(value: float, low: float, high: float) -> str:
    """A fraction with its 95 % interval, as `84.8% (71.8% to 92.4%)`."""
    return f"{percent(value)} ({percent(low)} to {percent(high)})"


def points(difference: float, digits: int = 1) -> str:
    """A difference of two fractions in percentage points, with its sign, as `+1.9`."""
    return f"{100 * difference:+.{digits}f}"


def count(number: int, noun: str, plural: str = "") -> str:
    """A number of things, as `1 image` and `1,200 images`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def size(number: int) -> str:
    """A number of bytes as `640 bytes`, `21 kB`, `3.4 MB` or `1.2 GB`."""
    if number < 1000:
        return count(number, "byte")
    for unit, divisor in (("kB", 1e3), ("MB", 1e6)):
        if number < 999.5 * divisor:
            return f"{number / divisor:.{0 if number >= 10 * divisor else 1}f} {unit}"
    return f"{number / 1e9:,.1f} GB"


def listed(names: Sequence[str], shown: int = 3) -> str:
    """The first names, as `crack, ok, pits and 5 more`."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def shortened(text: str, longest: int = 40) -> str:
    """A text of at most `longest` characters, with … for its middle."""
    if len(text) <= longest:
        return text
    head = (longest - 1) * 2 // 3
    return f"{text[:head]}…{text[head + 1 - longest :]}"


def duration(seconds: float) -> str:
    """A time span as `9.5 s`, `42 s`, `12 min` or `3.1 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
