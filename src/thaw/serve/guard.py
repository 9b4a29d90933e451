"""The outermost layer: who may ask, how much, how slowly; and nothing of the inside in any reply.

A body is read here, whole and within its bounds, before anything else looks at the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from thaw.serve.limits import Limits, RequestRefused
from thaw.serve.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/", "/health", "/ready", "/v2/health/live", "/v2/health/ready")
"""What needs no token: probes of an orchestrator, and the page, which asks for the token itself."""
LINGER_SECONDS = 2.0
"""How long a refused sender is listened to, so that it comes to read why."""
FAULT = "the server could not answer; its log says why"

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_LOG = logging.getLogger("thaw.serve")


@dataclass(frozen=True)
class AccessPolicy:
    """Who may ask: whoever knows the token; without one, whoever calls this machine by one of `hosts`.

    A page elsewhere that has its own name point to this machine (DNS rebinding) calls it by another.
    """

    token: str | None = None
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")

    def check(self, path: str, headers: dict[bytes, bytes]) -> None:
        """Raise `RequestRefused` for one who may not."""
        if self.token is None:
            host = headers.get(b"host", b"").decode("latin-1")
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name not in self.hosts:
                raise RequestRefused(400, "host", "this server does not answer to that host name")
        elif path not in OPEN_PATHS:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self.token.encode()):
                raise RequestRefused(401, "token", "a token is needed: Authorization: Bearer TOKEN")


class RequestGuard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: App, limits: Limits, access: AccessPolicy, metrics: Metrics) -> None:
        self._app = app
        self._limits = limits
        self._access = access
        self._metrics = metrics
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reply, incoming = _Reply(send), _Incoming(receive)
        began = time.perf_counter()
        try:
            await self._answer(scope, incoming, reply)
        except _Gone:
            return
        except RequestRefused as refused:
            self._metrics.refused(refused.reason)
            await reply.refuse(refused, incoming)
        except Exception:
            _LOG.exception("a request failed")
            self._metrics.failed()
            if not reply.status:
                await reply.refuse(RequestRefused(500, "fault", FAULT), incoming)
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.answered(route, reply.status, time.perf_counter() - began)

    async def _answer(self, scope: Scope, incoming: _Incoming, reply: _Reply) -> None:
        headers = dict(scope["headers"])
        self._check_head(scope)
        self._access.check(scope["path"], headers)
        body = bytearray()
        try:
            await self._read(body, int(headers.get(b"content-length", 0)), incoming)
            await self._app(scope, _once(bytes(body)), reply)
        finally:
            self._held -= len(body)

    def _check_head(self, scope: Scope) -> None:
        size = len(scope["raw_path"]) + len(scope["query_string"])
        size += sum(len(name) + len(value) for name, value in scope["headers"])
        if size > self._limits.header_bytes:
            raise RequestRefused(431, "headers", f"address and headers may have {self._limits.header_bytes} bytes")

    async def _read(self, body: bytearray, declared: int, incoming: _Incoming) -> None:
        self._check_size(declared, 0)
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while not incoming.is_whole:
                    chunk = await incoming()
                    self._check_size(len(body) + len(chunk), len(chunk))
                    body += chunk
                    self._held += len(chunk)
        except TimeoutError:
            raise RequestRefused(
                408, "slow", f"the body did not come within {self._limits.body_seconds:g} seconds"
            ) from None

    def _check_size(self, size: int, more: int) -> None:
        if size > self._limits.body_bytes:
            raise RequestRefused(413, "too_large", f"a request may have {self._limits.body_bytes} bytes")
        if self._held + more > self._limits.held_bytes:
            raise RequestRefused(
                503, "saturated", "too much is being sent at once; ask again in a moment", retry_after=1
            )


class _Gone(Exception):
    """The client has hung up."""


class _Incoming:
    """A body as it comes; `is_whole` once all of it has."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.is_whole = False

    async def __call__(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        self.is_whole = not message.get("more_body", False)
        return message.get("body", b"")

    async def discard(self, seconds: float) -> None:
        """Throw away what still comes, for so long at most."""
        with contextlib.suppress(TimeoutError, _Gone):
            async with asyncio.timeout(seconds):
                while not self.is_whole:
                    await self()


class _Reply:
    """What is sent, with the headers that every reply has; `status` is 0 until it begins."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", []), *_HEADERS]
        await self._send(message)

    async def refuse(self, refused: RequestRefused, incoming: _Incoming) -> None:
        """Send a refusal; where the body has not been read, listen for a moment and close."""
        body = json.dumps({"error": refused.sentence}).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **refused.headers}
        if not incoming.is_whole:
            headers["Connection"] = "close"
        lines = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self({"type": "http.response.start", "status": refused.status, "headers": lines})
        await self({"type": "http.response.body", "body": body, "more_body": True})
        if refused.reason != "slow":
            await incoming.discard(LINGER_SECONDS)
        await self({"type": "http.response.body", "body": b""})


def _once(body: bytes) -> Receive:
    """A `receive` that gives a body that has been read."""
    messages: list[Message] = [{"type": "http.disconnect"}, {"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if len(messages) > 1 else messages[0]

    return receive
