"""Files that may be larger than memory, read piece by piece from any thread."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np


class PiecewiseFile:
    """A file whose pieces are copied into arrays.

    A memory map would avoid the copy, but its pages count as memory of this process while memory lasts, and releasing
    them after each piece costs more than the copy. The file stays open, so it can be read after it has been removed.
    """

    def __init__(self, file: Path) -> None:
        self._stream = file.open("rb", buffering=0)
        self._lock = threading.Lock()
        self._path = file
        weakref.finalize(self, self._stream.close)

    def fill(self, array: np.ndarray, offset: int) -> None:
        """Fill a contiguous array with the bytes from `offset` on; raises `EOFError` where the file ends before."""
        left = array.reshape(-1).view(np.uint8).data
        with self._lock:
            self._stream.seek(offset)
            while left:
                count = self._stream.readinto(left)
                if not count:
                    raise EOFError(f"{self._path}: ends {len(left)} bytes too early")
                left = left[count:]


class ItemGrid:
    """A grid (rows, columns) of items of one dtype and shape, one file per column.

    shape: (rows, columns, *item shape).
    """

    def __init__(self, files: Sequence[Path], dtype: np.dtype, rows: int, item: tuple[int, ...]) -> None:
        self.shape = (rows, len(files), *item)
        self.dtype = dtype
        self._columns = [PiecewiseFile(file) for file in files]

    def __getitem__(self, where: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """The items at rows (N,) and columns (N,), as (N, *item shape)."""
        rows, columns = where
        read = np.empty((len(rows), *self.shape[2:]), self.dtype)
        for item, row, column in zip(read.reshape(len(rows), -1), rows.tolist(), columns.tolist(), strict=True):
            self._columns[column].fill(item, row * item.nbytes)
        return read

    def block(self, start: int, stop: int) -> np.ndarray:
        """All items of the rows from `start` to `stop`, (rows, columns, *item shape)."""
        read = np.empty((self.shape[1], stop - start, *self.shape[2:]), self.dtype)
        for items, column in zip(read, self._columns, strict=True):
            column.fill(items, start * items[0].nbytes)
        return read.swapaxes(0, 1)
