"""Parquet files, read by the calling thread from the file itself.

`pyarrow.parquet.read_table` on a buffer that Python owns reads in threads of Arrow. One that frees the buffer while the
interpreter ends, as it does right after an error, aborts the process: 9 of 60 did on one machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def read_metadata(file: Path) -> dict[bytes, bytes]:
    """The metadata of the schema of a Parquet file, without reading a row; raises as `read_table`."""
    with pq.ParquetFile(file) as opened:
        return opened.schema_arrow.metadata or {}


def read_table(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a Parquet file.

    Args:
        file: The file, which is closed again.
        columns: The columns to read; by default all.

    Raises:
        OSError: The file cannot be read.
        pyarrow.ArrowException: It is not a Parquet file, or damaged.
    """
    with pq.ParquetFile(file) as opened:
        return opened.read(None if columns is None else list(columns), use_threads=False)
