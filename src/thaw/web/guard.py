"""The outermost layer of the server: authentication, size and time limits, and errors that reveal no internals.

The body is read here, completely and within its limits, before the application handles the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from thaw.web.limits import LINGER_SECONDS, HttpLimits, RequestRefused, Traffic
from thaw.web.places import BodyPlaces

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

INTERNAL_ERROR = "internal error; see the log of the server"

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_LOG = logging.getLogger("thaw.web")


class Access(Protocol):
    """Who may send requests."""

    def check(self, scope: Scope) -> None:
        """Raise `RequestRefused` for a request that is not allowed."""
        ...


class RequestGuard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: App, limits: HttpLimits, access: Access, traffic: Traffic) -> None:
        self._app = app
        self._limits = limits
        self._access = access
        self._traffic = traffic
        self._held = 0
        self._places = BodyPlaces(limits.bodies, limits.body_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; every outcome becomes a reply."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reply, incoming = _Reply(send), _Incoming(receive)
        began = time.perf_counter()
        try:
            await self._handle(scope, incoming, reply)
        except _Disconnected:
            return
        except RequestRefused as refused:
            self._traffic.refused(refused.reason)
            await reply.refuse(refused, incoming)
        except Exception:
            _LOG.exception("a request failed")
            self._traffic.failed()
            if not reply.status:
                await reply.refuse(RequestRefused(500, "fault", INTERNAL_ERROR), incoming)
        route = getattr(scope.get("route"), "path", "none")
        self._traffic.handled(route, reply.status, time.perf_counter() - began)

    async def _handle(self, scope: Scope, incoming: _Incoming, reply: _Reply) -> None:
        headers = dict(scope["headers"])
        self._check_headers(scope)
        self._access.check(scope)
        body = bytearray()
        try:
            await self._read(body, headers, incoming)
            await self._app(scope, _once(bytes(body), incoming), reply)
        finally:
            self._held -= len(body)

    def _check_headers(self, scope: Scope) -> None:
        size = len(scope["raw_path"]) + len(scope["query_string"])
        size += sum(len(name) + len(value) for name, value in scope["headers"])
        if size > self._limits.header_bytes:
            raise RequestRefused(431, "headers", f"URL and headers may have {self._limits.header_bytes} bytes")
        encoding = dict(scope["headers"]).get(b"content-encoding", b"identity")
        if encoding.lower() != b"identity":
            raise RequestRefused(415, "bad_request", "compressed bodies are not supported: send it without encoding")

    async def _read(self, body: bytearray, headers: dict[bytes, bytes], incoming: _Incoming) -> None:
        declared = int(headers.get(b"content-length", 0))
        self._check_size(declared, 0)
        if not declared and b"transfer-encoding" not in headers:
            await incoming()
            return
        try:
            async with self._places.take() as place:
                while not incoming.is_complete:
                    chunk = await incoming()
                    self._check_size(len(body) + len(chunk), len(chunk))
                    body += chunk
                    self._held += len(chunk)
                    place.arrived(len(chunk))
        except TimeoutError:
            seconds = f"{self._limits.body_seconds:g} seconds"
            raise RequestRefused(
                408, "slow", f"the body did not arrive within {seconds}, or stalled while others were waiting"
            ) from None

    def _check_size(self, size: int, more: int) -> None:
        if size > self._limits.body_bytes:
            raise RequestRefused(413, "too_large", f"a request may have {self._limits.body_bytes} bytes")
        if self._held + more > self._limits.held_bytes:
            raise RequestRefused(503, "saturated", "too much data is being sent; try again in a moment", retry_after=1)


class _Disconnected(Exception):
    """The client has closed the connection."""


class _Incoming:
    """The incoming body, chunk by chunk; `is_complete` after the last one."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.is_complete = False

    async def message(self) -> Message:
        """The next message as it is."""
        return await self._receive()

    async def __call__(self) -> bytes:
        message = await self.message()
        if message["type"] == "http.disconnect":
            raise _Disconnected
        self.is_complete = not message.get("more_body", False)
        return message.get("body", b"")

    async def discard(self, seconds: float) -> None:
        """Read and drop the rest, for at most some seconds."""
        with contextlib.suppress(TimeoutError, _Disconnected):
            async with asyncio.timeout(seconds):
                while not self.is_complete:
                    await self()


class _Reply:
    """The reply, with the headers that all replies have unless they set others; `status` is 0 until it is sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = list(message.get("headers", []))
            given = {name.lower() for name, _ in own}
            message["headers"] = own + [header for header in _HEADERS if header[0] not in given]
        await self._send(message)

    async def refuse(self, refused: RequestRefused, incoming: _Incoming) -> None:
        """Send the refusal; if the body was not read, drain it for a moment and close."""
        body = json.dumps({"error": refused.message}).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refused.headers}
        if not incoming.is_complete:
            headers["Connection"] = "close"
        lines = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self({"type": "http.response.start", "status": refused.status, "headers": lines})
        await self({"type": "http.response.body", "body": body, "more_body": True})
        await incoming.discard(LINGER_SECONDS)
        await self({"type": "http.response.body", "body": b""})


def _once(body: bytes, incoming: _Incoming) -> Receive:
    """A `receive` for a body that was already read; after it, only that the client has gone can arrive."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else await incoming.message()

    return receive
