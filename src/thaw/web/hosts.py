"""Host names of requests: those that address this machine, and only this one."""

from __future__ import annotations

from collections.abc import Mapping

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def host_name(headers: Mapping[bytes, bytes]) -> str:
    """The host that a request addresses, without its port."""
    host = headers.get(b"host", b"").decode("latin-1")
    return host if host.endswith("]") else host.rpartition(":")[0] or host
