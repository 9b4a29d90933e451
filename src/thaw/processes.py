"""The processes that train one run together: what is this one's part of the work, who writes, what all agree on.

Everything here is that of a process that is alone; `thaw.distributed` makes the ones that are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Process:
    """One of `count` processes that train the same run on the same data.

    All of them call `gathered`, `total` and `broadcast`, and what is made of these, in the same order.

    Attributes:
        rank: 0 to count - 1. Rank 0 is the main process, the only one that plans, reports and writes.
        count: Processes.
        launch: What started the processes; a run folder that they begin carries it. Empty for one that is alone.
        restarts: How often the processes were restarted because one of them had ended.
    """

    rank: int = 0
    count: int = 1
    launch: str = ""
    restarts: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count:
            raise ValueError(f"rank {self.rank} of {self.count} processes; ranks count from 0")

    @property
    def is_main(self) -> bool:
        """Whether this process plans, writes and reports progress."""
        return self.rank == 0

    def gathered(self, text: str) -> list[str]:
        """The texts of all processes by rank; returns when every process has given its text, however long it takes."""
        return [text] * self.count

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes, the same bits in each."""
        return value

    def broadcast(self, value: Tensor) -> None:
        """Overwrite a tensor with that of the main process."""

    def share(self, values: Iterable[Tensor]) -> None:
        """Overwrite tensors, which may need gradients, with those of the main process."""
        for value in values:
            self.broadcast(value.detach())

    def wrap(self, module: nn.Module) -> nn.Module:
        """A module that is called as the given one and trains its parameters with gradients averaged over processes.

        To be called again when other parameters train.
        """
        return module

    def barrier(self) -> None:
        """Returns when all processes have called it."""
        self.gathered("")

    def from_main(self, work: Callable[[], str]) -> str:
        """What `work` gives in the main process; the others do not call it, and wait until it is done."""
        return self.gathered(work() if self.is_main else "")[0]

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any process."""
        return "1" in self.gathered("1" if flag else "")

    def part(self, batch: np.ndarray) -> np.ndarray:
        """This process's contiguous part of a global batch of indices (N,).

        The parts of all processes, concatenated by rank, are the batch; the first ones have at most one more.
        """
        return np.array_split(batch, self.count)[self.rank]


ALONE = Process()
"""The only process of a run."""
