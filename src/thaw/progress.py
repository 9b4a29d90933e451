"""What a person sees while a run goes on: lines, bars with time left, and a live table of epochs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from thaw.recipe import Monitor, Phase
from thaw.training.history import EpochRecord

Advance = Callable[[int, int], None]
_PLAIN_WIDTH = 140
"""Columns where the output is a file or a pipe, which wraps nothing."""


class Watcher(Protocol):
    """Is told what happens in a run."""

    def say(self, line: str) -> None:
        """One sentence."""
        ...

    def table(self, title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        """A small table."""
        ...

    def bar(self, title: str) -> Advance:
        """A progress bar, moved by calling the result with (done, total)."""
        ...

    def epoch(self, phase: Phase, record: EpochRecord, is_best: bool, monitor: Monitor) -> None:
        """One more epoch is done."""
        ...

    def close(self) -> None:
        """Nothing more will come for now."""
        ...


class Silent:
    """Shows nothing."""

    def say(self, line: str) -> None:
        """Nothing."""

    def table(self, title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        """Nothing."""

    def bar(self, title: str) -> Advance:
        """A bar that nobody sees."""
        return lambda done, total: None

    def epoch(self, phase: Phase, record: EpochRecord, is_best: bool, monitor: Monitor) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Terminal:
    """Shows a run on a terminal, or as plain lines where the output is not one."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        if not self._console.is_terminal:
            self._console.width = max(self._console.width, _PLAIN_WIDTH)
        self._bars: Progress | None = None
        self._phase = ""

    def say(self, line: str) -> None:
        """Print one line."""
        self._console.print(line, markup=False)

    def table(self, title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        """Print a small table, as wide as it needs to be."""
        if title:
            # As the title of the table it would wrap at the table's width.
            self._console.print(Text(f"\n{title}", style="italic"))
        table = Table(*header, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._console.print(table)

    def bar(self, title: str) -> Advance:
        """Show a bar with the time left; it goes when it is full."""
        self._close()
        bars = self._open()
        task = bars.add_task(title, total=None)

        def advance(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)
            if done >= total:
                self._close()

        return advance

    def epoch(self, phase: Phase, record: EpochRecord, is_best: bool, monitor: Monitor) -> None:
        """Print one row of the table of epochs and move the bar of its phase."""
        if self._phase != record.phase:
            self._close()
            self._phase = record.phase
            title = "loss" if monitor == "loss" else monitor.replace("_", " ")
            rate = "penalty" if phase.solver == "lbfgs" else "lr"
            self._console.print(
                f"\n[bold]{'phase':<12} {'epoch':>7} {rate:>9} {'train loss':>11} {'val loss':>9}  {title}[/]"
            )
            self._open().add_task(f"phase {phase.name}", total=phase.epochs)
        mark = "  [green]best[/]" if is_best else ""
        self._console.print(
            f"{record.phase:<12} {record.epoch:>3}/{phase.epochs:<3} {record.lr:>9.1e} {record.train_loss:>11.4f} "
            f"{record.val.loss:>9.4f}  {abs(record.val.by(monitor)):.4f}{mark}"
        )
        if self._bars:
            self._bars.update(self._bars.task_ids[0], completed=record.epoch)
        if record.epoch == phase.epochs:
            self._close()

    def close(self) -> None:
        """Take away whatever still moves."""
        self._close()
        self._phase = ""

    def _open(self) -> Progress:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._bars.start()
        return self._bars

    def _close(self) -> None:
        if self._bars:
            self._bars.stop()
            self._bars = None
