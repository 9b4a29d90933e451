"""How many cores there are to work with."""

from __future__ import annotations

import os

_limit: int | None = None


def worker_count() -> int:
    """Cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if _limit is None else min(cores, _limit)


def use_cores(count: int) -> None:
    """Use at most so many cores from now on in this process, which shares its machine with others like it."""
    global _limit
    _limit = count
