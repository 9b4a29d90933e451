"""Reporters of tests."""

from __future__ import annotations

from thaw.progress import NullReporter


class Listening(NullReporter):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)
