"""Tables that are written anew with every epoch or trial, and that users look at meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from thaw.errors import WriteError
from thaw.in_use import IN_USE, is_in_use, is_open_elsewhere
from thaw.progress import Reporter

Row = TypeVar("Row")


class LiveTable(Generic[Row]):
    """A table that does not end the work that it is about.

    On Windows, nothing replaces a file while a program such as Excel has it open. Only the last write has to succeed.
    """

    def __init__(self, file: Path, write: Callable[[Sequence[Row]], None], reporter: Reporter) -> None:
        """Begin a table.

        Args:
            file: The table.
            write: Writes it with all its rows.
            reporter: Is told once that the table is open elsewhere.
        """
        self._file, self._write, self._reporter = file, write, reporter
        self._is_told = False
        # An earlier process may have ended without its last write.
        self._is_behind = sys.platform == "win32"

    def write(self, rows: Sequence[Row]) -> None:
        """Write all rows so far, unless another program has the table open.

        Raises:
            WriteError: It cannot be written for another reason.
        """
        self._is_behind = True
        # Whoever looks at the table does so for longer than it is worth waiting for each time.
        if self._is_told and is_open_elsewhere(self._file):
            return
        try:
            self._write(rows)
        except WriteError as error:
            if not is_in_use(error.__cause__):
                raise
            if not self._is_told:
                self._reporter.say(
                    f"{self._file}: {IN_USE}; nothing waits for that, and the file is written again once it is closed"
                )
            self._is_told = True
        else:
            self._is_behind = False

    def finish(self, rows: Sequence[Row]) -> None:
        """Write all rows where that was not possible before; raises `WriteError` where it still is not."""
        if self._is_behind:
            self._write(rows)
