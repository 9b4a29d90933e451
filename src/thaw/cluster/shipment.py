"""Images that are sent to nodes which do not see them: the user is told why, and how much it was."""

from __future__ import annotations

from types import TracebackType

from thaw.formats import size
from thaw.progress import Reporter


class Shipment:
    """Tells the user that images are sent through Ray when that begins, and at the end how many bytes were."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._is_said = False
        self._bytes = 0

    def begin(self, reason: str) -> None:
        """Say why images are sent; only the first time."""
        if not self._is_said:
            self._is_said = True
            self._reporter.say(f"images are sent to the nodes through Ray: {reason}")

    def add(self, sent: int) -> None:
        """Count bytes that are sent."""
        self._bytes += sent

    def __enter__(self) -> Shipment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bytes:
            self._reporter.say(f"sent {size(self._bytes)} of images to the nodes")
