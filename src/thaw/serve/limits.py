"""What one server takes at most, and the one way in which it says no."""

from __future__ import annotations

from dataclasses import dataclass

from thaw.errors import ServeError


@dataclass(frozen=True)
class Limits:
    """Bounds that keep memory flat and waiting short, whatever is sent.

    batch: images classified at once. queue: images accepted and not yet answered, those being decoded included; it
    bounds the waiting time. wait_ms: how long a batch waits for images that are still being decoded.
    body_bytes: one request. held_bytes: all requests that are being read or handled. header_bytes: request line and
    headers. head_seconds and body_seconds: time within which headers, and then the body, must have arrived.
    keep_alive_seconds: how long a connection may be idle. explanations: maps waiting or being made.
    """

    batch: int = 16
    queue: int = 64
    wait_ms: float = 5.0
    body_bytes: int = 16 << 20
    held_bytes: int = 256 << 20
    header_bytes: int = 16 << 10
    head_seconds: float = 5.0
    body_seconds: float = 20.0
    keep_alive_seconds: int = 5
    connections: int = 256
    explanations: int = 4

    def __post_init__(self) -> None:
        """Raise `ServeError` where two bounds contradict each other."""
        if self.batch < 1 or self.queue < self.batch:
            raise ServeError(f"queue {self.queue}, batch {self.batch}: a batch is at least 1 and at most the queue")
        if not 1 <= self.body_bytes <= self.held_bytes:
            raise ServeError(f"a request may have 1 to {self.held_bytes >> 20} MB, not {self.body_bytes / (1 << 20):g}")


class RequestRefused(Exception):
    """A request that is turned away with a status, one sentence, and a word for the counter of refusals."""

    def __init__(self, status: int, reason: str, sentence: str, retry_after: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason
        self.sentence = sentence
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """The headers that its status asks for."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
