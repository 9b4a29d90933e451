"""Tables as CSV (RFC 4180) that every reader reads as they were written, whatever their cells contain."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import TextIO


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as text, a line feed after each; `None` is an empty cell.

    Python's writer quotes no carriage return where lines end with a line feed, and a reader would take it for the end
    of the row: names of files may contain one.
    """
    text = io.StringIO()
    plain, quoted = (csv.writer(text, lineterminator="\n", quoting=q) for q in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    for row in rows:
        cells = ["" if cell is None else str(cell) for cell in row]
        (quoted if any("\r" in cell for cell in cells) else plain).writerow(cells)
    return text.getvalue()


def print_csv(table: bytes, stream: TextIO) -> None:
    """Write CSV in UTF-8 to a stream such as standard output: as it is into a file or a pipe, as text on a terminal.

    On Windows, text in a file or a pipe would be in another encoding than readers of CSV expect.
    """
    if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
        # Whatever was printed before comes first.
        stream.flush()
        stream.buffer.write(table)
    else:
        stream.write(table.decode("utf-8"))
    stream.flush()
