"""Who may use Studio: whoever opened the address with the token, in pages that this server sent.

Opening the address exchanges the token for a cookie that scripts cannot read and other sites cannot send. A request
that changes something also carries a second secret, which is in the page only, and comes from the page's own origin.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from thaw.web.guard import Scope
from thaw.web.hosts import LOOPBACK, host_name
from thaw.web.limits import RequestRefused

PAGE = "/"
CSRF_HEADER = b"x-thaw-csrf"
_READS = ("GET", "HEAD")


@dataclass(frozen=True)
class StudioAccess:
    """The secrets of one server, new with every start.

    Attributes:
        port: Where it listens; browsers send cookies to every port of a host, so its cookie is named after it.
        hosts: Names of this machine; a page of another site whose name leads here has another (DNS rebinding).
    """

    port: int
    hosts: tuple[str, ...] = LOOPBACK
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def cookie_name(self) -> str:
        """Name of the cookie."""
        return f"thaw-studio-{self.port}"

    @property
    def cookie(self) -> str:
        """Value of the cookie."""
        return self._derived("cookie")

    @property
    def csrf(self) -> str:
        """What requests that change something carry in a header."""
        return self._derived("csrf")

    def is_token(self, text: str) -> bool:
        """Whether a text is the token."""
        return hmac.compare_digest(text.encode("utf-8", "replace"), self.token.encode())

    def is_known(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request carries the cookie."""
        name, wanted = self.cookie_name.encode(), self.cookie.encode()
        pairs = (part.strip().partition(b"=") for part in headers.get(b"cookie", b"").split(b";"))
        return any(key == name and hmac.compare_digest(value, wanted) for key, _, value in pairs)

    def check(self, scope: Scope) -> None:
        """Raise `RequestRefused` for a request that is not allowed; the page itself asks for the token."""
        headers = dict(scope["headers"])
        if host_name(headers) not in self.hosts:
            raise RequestRefused(400, "host", "this host name is not allowed")
        if scope["path"] == PAGE and scope["method"] in _READS:
            return
        if headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none"):
            raise RequestRefused(403, "origin", "requests of other sites are refused")
        if not self.is_known(headers):
            raise RequestRefused(401, "token", "open Studio with the address that it printed when it was started")
        if scope["method"] not in _READS:
            self._check_change(headers)

    def _check_change(self, headers: Mapping[bytes, bytes]) -> None:
        origin = headers.get(b"origin", b"")
        if origin != b"http://" + headers.get(b"host", b""):
            raise RequestRefused(403, "origin", "requests of other sites are refused")
        if not hmac.compare_digest(headers.get(CSRF_HEADER, b""), self.csrf.encode()):
            raise RequestRefused(403, "csrf", "reload the page: it was sent by another start of Studio")

    def _derived(self, purpose: str) -> str:
        return hmac.new(self.token.encode(), purpose.encode(), hashlib.sha256).hexdigest()
