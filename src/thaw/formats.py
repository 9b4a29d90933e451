"""Numbers and commands as text, the same in the console, on pages and in model cards."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

MANY = 10
"""Names shown where a person with few classes should see all of them."""

_ROUNDING = 1e-9
"""How far computing may take a fraction from 0 or 1 that is exactly that."""

_PLAIN_ON_WINDOWS = re.compile(r"[\w:\\/.=+-]+")
"""Words that mean themselves in cmd and in PowerShell."""


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


def command(*words: str | os.PathLike[str]) -> str:
    """A command line to paste: each word is quoted where the shells of this system would not take it as it is."""
    texts = [os.fspath(word) for word in words]
    return " ".join(map(_quoted_on_windows, texts)) if os.name == "nt" else shlex.join(texts)


def duration(seconds: float) -> str:
    """A time span as `9.5 s`, `42 s`, `12 min` or `3.1 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _quoted_on_windows(word: str) -> str:
    """Double quotes, which cmd and PowerShell both know; single ones are part of the word in cmd.

    `subprocess.list2cmdline` quotes only blanks, but both shells also split at signs such as `&`.
    """
    if _PLAIN_ON_WINDOWS.fullmatch(word):
        return word
    # Programs read a backslash as itself, except before a double quote.
    doubled = re.sub(r'\\+(?="|\Z)', r"\g<0>\g<0>", word)
    return '"' + doubled.replace('"', r"\"") + '"'
