"""The table of predictions: its columns, and how rows are written as CSV or Parquet.

Rows come in blocks that are appended to one file. For CSV that file is the table. Parquet files cannot be appended to,
so it is an Arrow stream that is rewritten row group by row group at the end.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from thaw import atomic
from thaw.csv_text import csv_text
from thaw.errors import WriteError
from thaw.in_use import when_closed
from thaw.prediction.predict import Prediction
from thaw.remote import shown
from thaw.writing import Own, check_has_folder, check_new

CSV, PARQUET = ".csv", ".parquet"
ROW_GROUP = 8192
"""Rows per row group of a Parquet file: 33 MB for 1000 classes."""

_LONGEST_HEADER = 1 << 22
"""Characters in which the header of a CSV file is looked for."""

_TEXT_COLUMNS = ("path", "status", "reason", "label", "review")


def header(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the columns: text first, numbers from `confidence` on."""
    return (*_TEXT_COLUMNS, "confidence", *(f"p_{name}" for name in classes))


def cells(prediction: Prediction, classes: Sequence[str]) -> tuple[str | float | None, ...]:
    """One row in the order of the header; `None` for empty cells."""
    path = shown(prediction.path)
    if prediction.status == "error":
        return (path, "error", prediction.reason, None, None, None, *[None] * len(classes))
    labelled = (prediction.label, prediction.review or None, prediction.confidence)
    return (path, "ok", None, *labelled, *prediction.probabilities)


class Format(Protocol):
    """A format of the table."""

    def head(self) -> bytes:
        """The first bytes of the file."""
        ...

    def block(self, predictions: Sequence[Prediction]) -> bytes:
        """Rows as bytes to append."""
        ...

    def finish(self, written: Path, out: Path) -> None:
        """Turn the file to which everything was appended into the table `out`."""
        ...


def format_of(out: Path | None, classes: Sequence[str]) -> Format:
    """The format of an output file by its suffix; CSV on standard output."""
    is_parquet = out is not None and out.suffix.lower() == PARQUET
    return Parquet(classes) if is_parquet else Csv(classes)


def check_output(out: Path) -> None:
    """Raise `WriteError` unless a table can be written to a file, which may be a table of predictions already."""
    if out.suffix.lower() not in (CSV, PARQUET):
        raise WriteError(out, f"predictions are written as {CSV} or {PARQUET}; give the file one of these suffixes")
    check_has_folder(out)
    check_new(out, Own("a table of predictions", is_table))


def is_table(file: Path) -> bool:
    """Whether a file is a table of predictions, by its columns."""
    try:
        names = _parquet_columns(file) if file.suffix.lower() == PARQUET else _csv_columns(file)
    except (OSError, ValueError, csv.Error):
        return False
    first, rest = tuple(names[: len(header(()))]), names[len(header(())) :]
    return first == header(()) and bool(rest) and all(name.startswith("p_") for name in rest)


def _parquet_columns(file: Path) -> list[str]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(file) as table:
        return table.schema_arrow.names


def _csv_columns(file: Path) -> list[str]:
    with file.open(encoding="utf-8", newline="") as stream:
        return next(csv.reader(io.StringIO(stream.read(_LONGEST_HEADER))), [])


class Csv:
    """CSV (RFC 4180) in UTF-8, numbers with six decimals, empty cells left blank."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)

    def head(self) -> bytes:
        """The header."""
        return csv_text([header(self._classes)]).encode("utf-8")

    def block(self, predictions: Sequence[Prediction]) -> bytes:
        """Rows as lines."""
        rows = (cells(prediction, self._classes) for prediction in predictions)
        shown = ([f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row] for row in rows)
        return csv_text(shown).encode("utf-8")

    def finish(self, written: Path, out: Path) -> None:
        """Rename the file, which is the table."""
        when_closed(lambda: os.replace(written, out))


class Parquet:
    """Parquet with strings and 32-bit floats, empty cells null."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._schema = pa.schema(
            [(name, pa.string() if name in _TEXT_COLUMNS else pa.float32()) for name in header(self._classes)]
        )

    def head(self) -> bytes:
        """The schema, which starts an Arrow stream."""
        return self._schema.serialize().to_pybytes()

    def block(self, predictions: Sequence[Prediction]) -> bytes:
        """Rows as one message of an Arrow stream."""
        columns = zip(*(cells(prediction, self._classes) for prediction in predictions), strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        return pa.record_batch(arrays, self._schema).serialize().to_pybytes()

    def finish(self, written: Path, out: Path) -> None:
        """Rewrite the stream as Parquet, with one row group in memory at a time."""
        from pyarrow.parquet import ParquetWriter

        with atomic.replacing(out) as path, path.open("wb") as stream, ParquetWriter(stream, self._schema) as writer:
            for group in _groups(written, self._schema):
                writer.write_table(group, ROW_GROUP)
        when_closed(written.unlink)


def _groups(written: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of an Arrow stream, in tables of at least one row group."""
    from pyarrow.ipc import open_stream

    waiting: list[pa.RecordBatch] = []
    with written.open("rb") as source, open_stream(source) as stream:
        for batch in stream:
            waiting.append(batch)
            if sum(len(item) for item in waiting) >= ROW_GROUP:
                yield pa.Table.from_batches(waiting, schema)
                waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting, schema)
