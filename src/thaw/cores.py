"""How many cores there are to work with."""

from __future__ import annotations

import os

CORES = "THAW_CORES"
"""Environment variable with the number of cores that a process may use of those that it sees."""

_limit: int | None = None


def worker_count() -> int:
    """Cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get(CORES, "")
    limits = [*([_limit] if _limit else []), *([int(given)] if given.isdecimal() and int(given) else [])]
    return min(cores, *limits) if limits else cores


def use_cores(count: int) -> None:
    """Use at most so many cores from now on in this process, which shares its machine with others like it."""
    global _limit
    _limit = count
