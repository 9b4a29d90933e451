"""The console: lines, tables, and progress bars with the time left."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from thaw.progress import OnProgress
from thaw.remote import shown

_PLAIN_WIDTH = 140
"""Columns where the output is a file or a pipe, which wraps nothing."""


class ConsoleReporter:
    """Shows a run on a terminal, or as plain lines where the output is not one."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        if not self._console.is_terminal:
            self._console.width = max(self._console.width, _PLAIN_WIDTH)
        self._bars: Progress | None = None

    def say(self, line: str) -> None:
        """Print one line."""
        self._console.print(shown(line), markup=False)

    def table(self, title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        """Print a small table, as wide as it needs to be."""
        if title:
            # As the title of the table it would wrap at the table's width.
            self._console.print(Text(f"\n{title}", style="italic"))
        table = Table(*header, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._console.print(table)

    def bar(self, title: str) -> OnProgress:
        """Show a bar with the time left; it goes when it is full, or when the next one comes."""
        self.close()
        bars = Progress(
            TextColumn("{task.description}"),
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
