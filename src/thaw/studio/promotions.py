"""Which classifier of a project is in use: promoted and rolled back, every step a line of a file that only grows."""

from __future__ import annotations

import threading
from datetime import datetime
from pathlib import Path

from thaw.errors import DataError, TrainingError
from thaw.studio.journal import Journal, Line

PROMOTE, ROLL_BACK = "promote", "roll back"


class Promotions:
    """The promoted classifiers of a project by name; its methods can be called from any thread."""

    def __init__(self, file: Path) -> None:
        """Open the file, or make it; raises `DataError` for a damaged one, and `WriteError`."""
        self._guard = threading.Lock()
        self._journal = Journal(file)
        self._stack: list[str] = []
        self._lines: list[Line] = []
        try:
            for line in self._journal.lines:
                self._apply(line)
        except (KeyError, IndexError) as error:
            self._journal.close()
            raise DataError(f"{file}: a line is not a promotion; restore the file from a copy") from error

    @property
    def champion(self) -> str | None:
        """The promoted classifier; `None` if there is none."""
        return self._stack[-1] if self._stack else None

    @property
    def previous(self) -> str | None:
        """What a roll back promotes again; `None` if there is nothing to go back to."""
        return self._stack[-2] if len(self._stack) > 1 else None

    @property
    def lines(self) -> tuple[Line, ...]:
        """Every step, the oldest first."""
        return tuple(self._lines)

    def promote(self, name: str, seen: str | None, verdict: str) -> None:
        """Promote a classifier.

        Args:
            name: Of the classifier.
            seen: The promoted classifier that whoever promotes saw.
            verdict: How it compares with that one, for the file; empty if it was not compared.

        Raises:
            TrainingError: Another classifier was promoted meanwhile, or this one is already.
            WriteError: The disk is full.
        """
        with self._guard:
            self._check(seen)
            if name == self.champion:
                raise TrainingError(f"{name} is promoted already")
            self._write({"action": PROMOTE, "classifier": name, "instead_of": seen, "verdict": verdict})

    def roll_back(self, seen: str | None) -> None:
        """Promote the previous classifier again; raises as `promote` does."""
        with self._guard:
            self._check(seen)
            if self.previous is None:
                raise TrainingError("there is no earlier classifier to go back to")
            self._write({"action": ROLL_BACK, "classifier": self.previous, "instead_of": seen})

    def close(self) -> None:
        """Close the file."""
        self._journal.close()

    def _check(self, seen: str | None) -> None:
        if seen != self.champion:
            raise TrainingError(f"{self.champion or 'no classifier'} is promoted by now; look again")

    def _write(self, line: Line) -> None:
        line = {**line, "when": datetime.now().astimezone().isoformat(timespec="milliseconds")}
        self._journal.append([line])
        self._apply(line)

    def _apply(self, line: Line) -> None:
        if line["action"] == ROLL_BACK:
            self._stack.pop()
        else:
            self._stack.append(str(line["classifier"]))
        self._lines.append(line)
