"""Peak memory and processor time of a process and its children, from /proc, measured in the same way for every peer."""

from __future__ import annotations

import os
import threading
from pathlib import Path

SECONDS_BETWEEN = 0.2
_MIN_INCREASE = 1.01


class PeakMemory:
    """Monitors a process tree from a thread.

    Attributes:
        rss_mb: Peak of the total resident memory; pages shared by forked workers count in each process.
        pss_mb: Peak with shared pages counted once. Reading it walks the page tables, so it is read only when the
            resident total exceeds its previous maximum by 1 %.
        anon_mb: Peak of anonymous memory; pages of mapped files can be dropped when memory is short.
        cpu_seconds: Processor time, which depends less on other load than wall time.
    """

    def __init__(self, pid: int) -> None:
        self.rss_mb = self.pss_mb = self.anon_mb = self.cpu_seconds = 0.0
        self._pid, self._last_rss = pid, 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self._sample()
            if self._over.wait(SECONDS_BETWEEN):
                return

    def _sample(self) -> None:
        tree = _tree(self._pid)
        rss = sum(_megabytes(_read(f"/proc/{pid}/status"), "VmRSS:") for pid in tree)
        self.rss_mb = max(self.rss_mb, rss)
        self.cpu_seconds = max(self.cpu_seconds, sum(map(_cpu_seconds, tree)))
        if rss > self._last_rss * _MIN_INCREASE:
            self._last_rss = rss
            pages = [_read(f"/proc/{pid}/smaps_rollup") for pid in tree]
            self.pss_mb = max(self.pss_mb, sum(_megabytes(text, "Pss:") for text in pages))
            self.anon_mb = max(self.anon_mb, sum(_megabytes(text, "Pss_Anon:") for text in pages))


def _tree(root: int) -> list[int]:
    """A process and all its descendants."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            waiting += map(int, _read(str(file)).split())
    return found


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process and its finished children."""
    ticks = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[11:15]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _megabytes(text: str, name: str) -> float:
    """The value of a line `NAME N kB`; 0 if there is none, as for a finished process."""
    for line in text.splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError:
        return ""
