"""Where a server listens, and the server around an application."""

from __future__ import annotations

import ipaddress
import logging
import socket
from dataclasses import dataclass

import uvicorn

from thaw.errors import ServeError
from thaw.web.connection import bounded_protocol
from thaw.web.guard import RequestGuard
from thaw.web.limits import HttpLimits, Traffic


@dataclass(frozen=True)
class Address:
    """Where to listen; port 0 means any free one."""

    host: str = "127.0.0.1"
    port: int = 8000

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def host_in_url(self) -> str:
        """The host as URLs and the header Host have it."""
        return f"[{self.host}]" if ":" in self.host else self.host


def listen(address: Address) -> socket.socket:
    """A socket that listens; raises `ServeError` where the address cannot be used."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ServeError(f"cannot listen on {address.host} port {address.port}: {reason}") from error


def url_of(address: Address, listening: socket.socket) -> str:
    """The URL under which a socket is reached."""
    return f"http://{address.host_in_url}:{listening.getsockname()[1]}/"


def bounded_server(app: RequestGuard, limits: HttpLimits, traffic: Traffic) -> uvicorn.Server:
    """A server around an application that is ready to run."""
    # It logs every malformed form, so that any client could flood the log.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        http=bounded_protocol(limits, traffic),
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=limits.keep_alive_seconds,
        timeout_graceful_shutdown=limits.grace_seconds,
        h11_max_incomplete_event_size=limits.header_bytes,
    )
    return uvicorn.Server(config)
