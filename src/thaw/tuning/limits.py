"""The limits of a search."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_SECONDS = 30 * 60.0
"""How long a search may take where nobody says."""


@dataclass(frozen=True)
class Limits:
    """How long a search goes on: seconds in all, and trials; `None` for as many as pay.

    spent: Seconds that have already gone by, such as those in which libraries were imported.
    """

    seconds: float | None = DEFAULT_SECONDS
    trials: int | None = None
    spent: float = 0.0
