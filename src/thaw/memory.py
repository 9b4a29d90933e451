"""How much memory this process takes, as its system counts it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class MemoryUse:
    """Resident memory of this process in bytes, with the pages of libraries: now, and at most since it began."""

    now: int
    peak: int


UNKNOWN = MemoryUse(0, 0)


def measure_memory() -> MemoryUse:
    """What this process takes."""
    info = psutil.Process().memory_info()
    return MemoryUse(info.rss, max(info.rss, _peak(info)))


def obtainable_bytes() -> int:
    """Memory that this process holds or can still get without swapping."""
    return psutil.Process().memory_info().rss + int(psutil.virtual_memory().available)


def _peak(info: Any) -> int:
    if sys.platform == "linux":
        # getrusage would also count what the process was forked from.
        lines = dict(line.partition(":")[::2] for line in _STATUS.read_text(encoding="utf-8").splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    if sys.platform == "win32":
        return int(info.peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
