"""uvicorn's HTTP/1.1 with two limits that it lacks: the number of connections, and the time for sending headers."""

from __future__ import annotations

import asyncio
import json
import socket

from uvicorn.protocols.http.h11_impl import H11Protocol

from thaw.web.limits import LINGER_SECONDS, HttpLimits, Traffic


class BoundedProtocol(H11Protocol):
    """One connection; after a refusal it is read on for a moment, because closing it now would lose the reply.

    Attributes:
        limits: Of connections and their time.
        traffic: Counts what is refused.
        lingering: Refused connections of the server that are read on.
    """

    limits: HttpLimits
    traffic: Traffic
    lingering: set[H11Protocol]
    _deadline: asyncio.TimerHandle | None = None
    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse one connection too many; give the others a time for their headers."""
        super().connection_made(transport)
        # asyncio sets this only on sockets with an explicit protocol; without it each reply is delayed by 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self.limits.connections:
            self._refuse("503 Service Unavailable", "connections", "too many connections; try again in a moment")
        else:
            self._deadline = self.loop.call_later(self.limits.head_seconds, self._headers_timed_out)

    def data_received(self, data: bytes) -> None:
        """Pass it on, unless the connection was refused; between requests the time for headers runs."""
        if self._is_refused:
            return
        super().data_received(data)
        is_idle = self.cycle is None or self.cycle.response_complete
        if not is_idle:
            self._cancel_deadline()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.limits.head_seconds, self._headers_timed_out)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._cancel_deadline()
        self.lingering.discard(self)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP/1.1; uvicorn would close the connection at once."""
        if self.cycle and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.close()
        else:
            self._refuse("400 Bad Request", "bad_request", "the request is not valid HTTP/1.1, or its head too large")

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _headers_timed_out(self) -> None:
        message = f"the headers did not arrive within {self.limits.head_seconds:g} seconds"
        self._refuse("408 Request Timeout", "slow", message)

    def _refuse(self, status: str, reason: str, message: str) -> None:
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        self._cancel_deadline()
        self.traffic.refused(reason)
        body = json.dumps({"error": message})
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        retry = "Retry-After: 1\r\n" if reason == "connections" else ""
        self.transport.write(f"{head}{retry}Connection: close\r\n\r\n{body}".encode())
        self._end_request()
        self._linger()

    def _end_request(self) -> None:
        """Tell the application, if it is waiting for a body, that no more will come."""
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _linger(self) -> None:
        """Close the connection in a moment; until then it takes no place of those that are open."""
        self.connections.discard(self)
        if len(self.lingering) >= self.limits.connections:
            self.transport.close()
            return
        self.lingering.add(self)
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


def bounded_protocol(limits: HttpLimits, traffic: Traffic) -> type[BoundedProtocol]:
    """The class of the connections of one server, for `uvicorn.Config(http=...)`."""

    class Bounded(BoundedProtocol):
        pass

    Bounded.limits, Bounded.traffic, Bounded.lingering = limits, traffic, set()
    return Bounded
