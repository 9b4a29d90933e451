"""The table of predictions: its columns, and how rows become CSV or Parquet.

Rows come in blocks that are appended to one file as bytes. For CSV that file is the table. For Parquet, which cannot
be appended to, it is an Arrow stream, rewritten row group by row group when it is whole.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from thaw.prediction.predict import Prediction

PARQUET = ".parquet"
GROUP = 8192
"""Rows in a row group of a Parquet file: 33 MB for 1000 classes."""

_TEXTS = ("path", "status", "reason", "label", "review")


def header(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the columns: text in the first of them, figures from confidence on."""
    return (*_TEXTS, "confidence", *(f"p_{name}" for name in classes))


def cells(prediction: Prediction, classes: Sequence[str]) -> tuple[str | float | None, ...]:
    """One row under the header; `None` where there is nothing to say."""
    path = str(prediction.path)
    if prediction.status == "error":
        return (path, "error", prediction.reason, None, None, None, *[None] * len(classes))
    said = (prediction.label, prediction.review or None, prediction.confidence)
    return (path, "ok", None, *said, *prediction.probabilities)


class Format(Protocol):
    """How a table is written."""

    def head(self) -> bytes:
        """What the file begins with."""
        ...

    def block(self, predictions: Sequence[Prediction]) -> bytes:
        """Rows, to be appended."""
        ...

    def finish(self, written: Path, out: Path) -> None:
        """Make the finished table `out` of the file to which everything was appended."""
        ...


def format_of(out: Path | None, classes: Sequence[str]) -> Format:
    """Parquet for a name that ends so, else CSV."""
    is_parquet = out is not None and out.suffix.lower() == PARQUET
    return Parquet(classes) if is_parquet else Csv(classes)


class Csv:
    """CSV as RFC 4180 has it, UTF-8, figures with six decimals, nothing in a cell that has nothing to say."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)

    def head(self) -> bytes:
        """The header."""
        return _csv([header(self._classes)])

    def block(self, predictions: Sequence[Prediction]) -> bytes:
        """Rows as lines."""
        rows = (cells(prediction, self._classes) for prediction in predictions)
        return _csv([f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row] for row in rows)

    def finish(self, written: Path, out: Path) -> None:
        """What was appended is the table."""
        os.replace(written, out)


class Parquet:
    """Parquet with texts as strings and figures as 32-bit floats, null in a cell that has nothing to say."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)
        self._schema = pa.schema(
            [(name, pa.string() if name in _TEXTS else pa.float32()) for name in header(self._classes)]
        )

    def head(self) -> bytes:
        """The schema, as an Arrow stream begins."""
        return self._schema.serialize().to_pybytes()

    def block(self, predictions: Sequence[Prediction]) -> bytes:
        """Rows as one message of an Arrow stream."""
        columns = zip(*(cells(prediction, self._classes) for prediction in predictions), strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        return pa.record_batch(arrays, self._schema).serialize().to_pybytes()

    def finish(self, written: Path, out: Path) -> None:
        """Rewrite the stream; no more than one row group is in memory."""
        from pyarrow.parquet import ParquetWriter

        temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as stream:
                with ParquetWriter(stream, self._schema) as writer:
                    for group in _groups(written, self._schema):
                        writer.write_table(group, GROUP)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, out)
        finally:
            temporary.unlink(missing_ok=True)
        written.unlink()


def _groups(written: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of an Arrow stream, so many together that they are a row group or a little more."""
    from pyarrow.ipc import open_stream

    waiting: list[pa.RecordBatch] = []
    with written.open("rb") as source, open_stream(source) as stream:
        for batch in stream:
            waiting.append(batch)
            if sum(len(item) for item in waiting) >= GROUP:
                yield pa.Table.from_batches(waiting, schema)
                waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting, schema)


def _csv(rows: Iterable[Sequence[str | None]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8")
