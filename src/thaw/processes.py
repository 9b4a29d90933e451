"""The processes that train one run together: what is this one's part of a batch, who writes, when they wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def _wait_for_nobody() -> None:
    """The barrier of a process that is alone."""


def _own(value: Tensor) -> Tensor:
    """The sum over a process that is alone."""
    return value


@dataclass(frozen=True)
class Process:
    """One of `count` processes that train the same run on the same data.

    rank: 0 to count - 1. Rank 0 is the main process, the only one that writes files. barrier: returns when all
    processes have called it. total: the sum of a tensor over all processes, the same in each.
    """

    rank: int = 0
    count: int = 1
    barrier: Callable[[], None] = _wait_for_nobody
    total: Callable[[Tensor], Tensor] = _own

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
