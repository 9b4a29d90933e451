"""The processes that train one run together: which part of each batch is this one's, and which of them writes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Process:
    """One of `count` processes that train the same run on the same data.

    rank: 0 to count - 1. Rank 0 is the main process, the only one that writes files.
    """

    rank: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count:
            raise ValueError(f"rank {self.rank} of {self.count} processes; ranks count from 0")

    @property
    def is_main(self) -> bool:
        """Whether this process writes checkpoints and reports progress."""
        return self.rank == 0

    def part(self, batch: np.ndarray) -> np.ndarray:
        """This process's contiguous part of a global batch of indices (N,).

        The parts of all processes, concatenated by rank, are the batch; their sizes differ by at most one.
        """
        return np.array_split(batch, self.count)[self.rank]


ALONE = Process()
"""The only process of a run."""
