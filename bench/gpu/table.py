"""The table of results: every row is shown and written as soon as it is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_HEADER = ("job", "measured", "result", "note")


@dataclass(frozen=True)
class Row:
    """One result; `job` is filled in by whoever runs the job."""

    measured: str
    result: str
    note: str = ""
    job: str = ""


def speed(measured: str, images_per_second: float, note: str = "") -> Row:
    """A row of images per second."""
    return Row(measured, f"{images_per_second:,.0f} images/s", note)


def took(measured: str, seconds: float, note: str = "") -> Row:
    """A row of seconds."""
    return Row(measured, f"{seconds:.1f} s", note)


def agreement(measured: str, difference: float, tolerance: float, note: str = "") -> Row:
    """A row of a difference that should be within a tolerance; NaN is not."""
    verdict = "within" if difference <= tolerance else "**NOT within**"
    return Row(measured, f"{difference:.2g}", f"{verdict} {tolerance:g}{'; ' if note else ''}{note}")


class Table:
    """A Markdown table on standard output, and in a file where one is given."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        if file:
            file.write_text("", encoding="utf-8")
        self._write(_HEADER)
        self._write(("---",) * len(_HEADER))

    def add(self, row: Row) -> None:
        """Write one row."""
        self._write((row.job, row.measured, row.result, row.note))

    def _write(self, cells: tuple[str, ...]) -> None:
        line = "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
        print(line, flush=True)
        if self._file:
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
