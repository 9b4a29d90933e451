"""Who may send requests to a server of predictions."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from thaw.web.guard import Scope
from thaw.web.hosts import LOOPBACK, host_name
from thaw.web.limits import RequestRefused

OPEN_PATHS = ("/", "/health", "/ready", "/v2/health/live", "/v2/health/ready")
"""Paths that need no token: health probes, and the page, which asks the user for the token."""


@dataclass(frozen=True)
class AccessPolicy:
    """Who may send requests: with a token, those who present it; without one, those who address one of `hosts`.

    The host check rejects web pages of other sites whose domain resolves to this machine (DNS rebinding).
    """

    token: str | None = None
    hosts: tuple[str, ...] = LOOPBACK

    def check(self, scope: Scope) -> None:
        """Raise `RequestRefused` for a request that is not allowed."""
        headers = dict(scope["headers"])
        if self.token is None:
            if host_name(headers) not in self.hosts:
                raise RequestRefused(400, "host", "this host name is not allowed")
        elif scope["path"] not in OPEN_PATHS:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self.token.encode()):
                raise RequestRefused(401, "token", "a valid token is required: Authorization: Bearer TOKEN")
