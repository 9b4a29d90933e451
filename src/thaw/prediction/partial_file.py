"""A file that is written in blocks over hours and can be resumed after a kill at any moment.

Next to `FILE` there are `.FILE.partial`, to which blocks are appended, and `.FILE.partial.json`, the record of the job
and of how many bytes are valid. A block is flushed to disk before the record that counts it; bytes after the last
counted one are discarded when the job is resumed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from io import FileIO
from pathlib import Path
from types import TracebackType

from thaw import atomic
from thaw.errors import DataError
from thaw.in_use import when_closed
from thaw.locks import lock
from thaw.temporary import remove_leftovers
from thaw.writing import Own, advising, check_new, explained

_HOW = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_RESUME = ", then re-run the command to resume"


@dataclass(frozen=True)
class ResumeKey:
    """What must not change between an interrupted and a resumed job; error messages use the names of the fields."""

    bundle: str
    images: tuple[str, ...]
    shard: str
    engine: str
    device: str

    def differences(self, other: ResumeKey) -> list[str]:
        """Names of the fields that differ."""
        return [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]


@dataclass(frozen=True)
class RowsDone:
    """How much of a file is done.

    Attributes:
        rows: Rows written.
        failed: How many of them are error rows.
        paths: Digest of the files of these rows, in order.
        engine: The engine that computed them.
        size: Valid bytes of the partial file.
    """

    rows: int = 0
    failed: int = 0
    paths: str = ""
    engine: str = ""
    size: int = 0


def partial_of(out: Path) -> Path:
    """The path of the partial file."""
    return out.with_name(f".{out.name}.partial")


class PartialFile:
    """The partial file of one output file, locked by this process; a context manager."""

    def __init__(self, out: Path, key: ResumeKey) -> None:
        """Open the partial file of `out`, or create it; `done` tells how much of it is done.

        Raises:
            DataError: Another process is writing it, or it belongs to another job.
            WriteError: It cannot be written.
        """
        self.out, self.key = out, key
        self.path = partial_of(out)
        self.record = self.path.with_name(f"{self.path.name}.json")
        with explained(out):
            self._stream = self._opened()
        try:
            self.done = self._recorded()
            self._stream.truncate(self.done.size)
            self._stream.seek(self.done.size)
        except BaseException:
            self._stream.close()
            raise

    def append(self, block: bytes, done: RowsDone) -> None:
        """Append a block, then write the record of what is done; its size is filled in."""
        with advising(_RESUME), explained(self.out):
            rest = memoryview(block)
            while rest:
                rest = rest[self._stream.write(rest) :]
            os.fsync(self._stream.fileno())
            done = replace(done, size=self._stream.tell())
            atomic.write_text(self.record, json.dumps({"job": asdict(self.key), "done": asdict(done)}))
        self.done = done

    def finish(self, make: Callable[[Path, Path], None]) -> None:
        """Let `make(partial, out)` turn the complete partial file into the output file, and remove the record."""
        self._let_go()
        with advising(_RESUME), explained(self.out):
            make(self.path, self.out)
        when_closed(lambda: self.record.unlink(missing_ok=True))

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self.done.rows:
            self._let_go()
            when_closed(lambda: self.path.unlink(missing_ok=True))
            when_closed(lambda: self.record.unlink(missing_ok=True))
        self._stream.close()

    def _opened(self) -> FileIO:
        """The partial file, opened, and locked until this process ends."""
        check_new(self.path, Own("a file that `thaw predict` resumes", lambda _: True))
        # Unbuffered, so that nothing remains to be written when the disk is full.
        stream = FileIO(os.open(self.path, _HOW, 0o666), "r+")
        # Without locks, two processes that write the same file are not detected.
        is_locked = lock(stream.fileno())
        if is_locked is False or (is_locked and not self._is_still(stream)):
            stream.close()
            raise DataError(f"{self.out}: another process is writing it; wait for it, or choose another file")
        return stream

    def _is_still(self, stream: FileIO) -> bool:
        """Whether no other process has finished the file since it was opened."""
        return self.path.exists() and os.path.samestat(os.fstat(stream.fileno()), self.path.stat())

    def _let_go(self) -> None:
        """Close the file on Windows, which renames and removes no open one; elsewhere closing would end the lock."""
        if sys.platform == "win32":
            self._stream.close()

    def _recorded(self) -> RowsDone:
        """How much of the file is done; raises `DataError` if it belongs to another job."""
        for name in (self.out.name, self.record.name):
            remove_leftovers(self.out.parent, name)
        try:
            record = json.loads(self.record.read_bytes())
            key = ResumeKey(**{**record["job"], "images": tuple(record["job"]["images"])})
            done = RowsDone(**record["done"])
        except (OSError, ValueError, TypeError, KeyError):
            return RowsDone()
        # A kill right after the output file appeared leaves a record without rows.
        if self._stream.seek(0, os.SEEK_END) < done.size:
            return RowsDone()
        if differences := self.key.differences(key):
            raise DataError(
                f"{self.path}: contains {done.rows:,} rows of another job (different {', '.join(differences)}); "
                "finish that job, remove this file, or choose another with --out"
            )
        return done
