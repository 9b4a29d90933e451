"""Limits of a server that hold for any application, and the exception for requests that it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from thaw.errors import ServeError


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """Bounds on memory and waiting time that hold for any requests.

    Attributes:
        body_bytes: Size of one request.
        held_bytes: Size of all requests that are being read or handled.
        header_bytes: Size of the request line and headers.
        head_seconds: Time within which the headers must arrive.
        body_seconds: Time within which the body must arrive.
        bodies: Requests whose bodies are arriving at once.
        keep_alive_seconds: How long a connection may be idle.
        connections: Open connections.
        grace_seconds: How long requests that are being handled may take once the server stops.
    """

    body_bytes: int = 16 << 20
    held_bytes: int = 256 << 20
    header_bytes: int = 16 << 10
    head_seconds: float = 5.0
    body_seconds: float = 20.0
    bodies: int = 64
    keep_alive_seconds: int = 5
    connections: int = 256
    grace_seconds: int = 60

    def __post_init__(self) -> None:
        """Raise `ServeError` if two limits contradict each other."""
        if not 1 <= self.body_bytes <= self.held_bytes:
            raise ServeError(
                f"the size limit of a request must be between 1 byte and {self.held_bytes >> 20} MB, "
                f"not {self.body_bytes / (1 << 20):g} MB"
            )


class Traffic(Protocol):
    """Is told what becomes of each request."""

    def handled(self, route: str, status: int, seconds: float) -> None:
        """A request was replied to; `route` is its pattern."""
        ...

    def refused(self, reason: str) -> None:
        """A request was refused."""
        ...

    def failed(self) -> None:
        """A request failed with an internal error."""
        ...


LINGER_SECONDS = 2.0
"""How long a refused request is read on, so that its reply is not lost in a reset of the connection."""


class RequestRefused(Exception):
    """A refused request: HTTP status, reason for the metrics, and a message of one sentence for the client."""

    def __init__(self, status: int, reason: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """The headers that belong to the status."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
