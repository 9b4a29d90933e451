"""The console: lines, tables, and progress bars with the time left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from thaw.progress import OnProgress
from thaw.remote import shown

_UNLIMITED = 100_000
"""Columns where the output is a file or a pipe, which wraps and shortens nothing."""


def plain_console(least: int = 0, **options: Any) -> Console:
    """A console that prints every text as it is: names of classes and files may look like markup or emoji of rich.

    Args:
        least: Columns that it has on a narrower terminal too.
        options: Of the console.
    """
    console = Console(highlight=False, markup=False, emoji=False, **options)
    console.width = max(console.width, least) if console.is_terminal else _UNLIMITED
    return console


class ConsoleReporter:
    """Shows a run on a terminal, or as plain lines where the output is not one."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or plain_console()
        self._bars: Progress | None = None

    def say(self, line: str) -> None:
        """Print one line."""
        self._console.print(shown(line))

    def table(self, title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        """Print a small table; on a terminal that is too narrow for it, its cells continue on the next line."""
        if title:
            # As the title of the table it would wrap at the table's width.
            self._console.print(Text(f"\n{title}", style="italic"))
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in header:
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    def bar(self, title: str) -> OnProgress:
        """Show a bar with the time left; it goes when it is full, or when the next one comes."""
        self.close()
        bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._bars = bars
        bars.start()
        task = bars.add_task(title, total=None)

        def advance(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)
            if done >= total:
                bars.stop()

        return advance

    def close(self) -> None:
        """Take away the bar that still moves."""
        if self._bars:
            self._bars.stop()
            self._bars = None
