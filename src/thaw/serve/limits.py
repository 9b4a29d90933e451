"""Limits of a server of predictions."""

from __future__ import annotations

from dataclasses import dataclass

from thaw.errors import ServeError
from thaw.web.limits import HttpLimits


@dataclass(frozen=True, kw_only=True)
class Limits(HttpLimits):
    """Bounds on memory and waiting time that hold for any requests.

    Attributes:
        batch: Images classified at once.
        queue: Images accepted but not yet classified, including those being decoded; it bounds the waiting time.
        wait_ms: How long a batch waits for images that are still being decoded.
        explanations: Explanations waiting or being computed.
    """

    batch: int = 16
    queue: int = 64
    wait_ms: float = 5.0
    explanations: int = 4

    def __post_init__(self) -> None:
        """Raise `ServeError` if two limits contradict each other."""
        if self.batch < 1 or self.queue < self.batch:
            raise ServeError(
                f"queue {self.queue}, batch {self.batch}: the batch must be at least 1 and at most the queue"
            )
        super().__post_init__()
