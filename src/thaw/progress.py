"""How long work tells what it is doing: through a reporter, which shows it on a console, or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

OnProgress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""

Bar = Callable[[str], OnProgress]
"""Makes a progress bar from its title."""


class Reporter(Protocol):
    """Receives what happens in a run."""

    def say(self, line: str) -> None:
        """One line of text."""
        ...

    def table(self, title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        """A small table."""
        ...

    def bar(self, title: str) -> OnProgress:
        """A progress bar, moved by calling the result with (done, total); it replaces the one before it."""
        ...

    def close(self) -> None:
        """Nothing more will come for now."""
        ...


class NullReporter:
    """Shows nothing: the `reporter` for functions that are to be silent."""

    def say(self, line: str) -> None:
        """Nothing."""

    def table(self, title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        """Nothing."""

    def bar(self, title: str) -> OnProgress:
        """A bar that nobody sees."""
        return lambda done, total: None

    def close(self) -> None:
        """Nothing."""
