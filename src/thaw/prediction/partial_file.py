"""A file that is written over hours in blocks and survives a kill between any two of them.

Beside `FILE` lie `.FILE.partial`, to which blocks are appended, and `.FILE.partial.json`, which says for what job and
how far it counts. A block is flushed to disk before the record that counts it; what lies behind the last counted byte
was torn and is cut off by whoever goes on.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from io import FileIO
from pathlib import Path
from types import TracebackType

from thaw import atomic
from thaw.errors import DataError

try:
    import fcntl
except ImportError:  # Where there are no such locks, two processes are not kept apart.
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class ResumeKey:
    """What must be the same for a file to be gone on with; each field is called in a refusal as it is here."""

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
    """How far a file has come.

    rows: written, of which so many `failed`. paths: a digest of the paths of these rows, in order. engine: what
    computed them. size: bytes of the file that count.
    """

    rows: int = 0
    failed: int = 0
    paths: str = ""
    engine: str = ""
    size: int = 0


def partial_of(out: Path) -> Path:
    """Where the unfinished form of a file lies."""
    return out.with_name(f".{out.name}.partial")


class PartialFile:
    """The unfinished form of one file, held by one process; use it in a `with` block."""

    def __init__(self, out: Path, job: ResumeKey) -> None:
        """Take hold of what is there of `out`, or begin; `done` says how far it is.

        Raises `DataError` where another process holds it, where what is there belongs to another job, or where
        nothing can be written.
        """
        self.out, self.job = out, job
        self.path = partial_of(out)
        self.record = self.path.with_name(f"{self.path.name}.json")
        if out.is_dir():
            raise DataError(f"{out}: is a folder; give the name of a file")
        try:
            self._stream = self._held()
        except OSError as error:
            raise DataError(f"{out}: cannot be written: {error.strerror}") from error
        try:
            self.done = self._found()
            self._stream.truncate(self.done.size)
            self._stream.seek(self.done.size)
        except BaseException:
            self._stream.close()
            raise

    def append(self, block: bytes, done: RowsDone) -> None:
        """Add a block, then the record of what is done with it; the size is filled in."""
        try:
            rest = memoryview(block)
            while rest:
                rest = rest[self._stream.write(rest) :]
            os.fsync(self._stream.fileno())
            done = replace(done, size=self._stream.tell())
            atomic.write_text(self.record, json.dumps({"job": asdict(self.job), "done": asdict(done)}))
        except OSError as error:
            raise DataError(f"{self.out}: cannot be written: {error.strerror}; run the same again to go on") from error
        self.done = done

    def finish(self, make: Callable[[Path, Path], None]) -> None:
        """Let `make(partial, out)` turn the whole partial file into the finished one; nothing else stays."""
        try:
            make(self.path, self.out)
        except OSError as error:
            raise DataError(f"{self.out}: cannot be written: {error.strerror}; run the same again to go on") from error
        self.record.unlink(missing_ok=True)

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self.done.rows:
            self.path.unlink(missing_ok=True)
            self.record.unlink(missing_ok=True)
        self._stream.close()

    def _held(self) -> FileIO:
        """The partial file, opened, and locked for as long as this process lives."""
        # Without a buffer, so that nothing is left to be written when a full disk ends it.
        stream = FileIO(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+")
        if fcntl and not self._is_locked(stream):
            stream.close()
            raise DataError(f"{self.out}: another process is writing it; wait for it, or name another file")
        return stream

    def _is_locked(self, stream: FileIO) -> bool:
        """Whether this process has the file now, and nobody has finished it since it was opened."""
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            # A file system without locks.
            return True
        return self.path.exists() and os.path.samestat(os.fstat(stream.fileno()), self.path.stat())

    def _found(self) -> RowsDone:
        """How far the file is; raises `DataError` where it is that of another job."""
        for name in (self.out.name, self.record.name):
            atomic.remove_leftovers(self.out.parent, glob.escape(name))
        try:
            kept = json.loads(self.record.read_bytes())
            job = ResumeKey(**{**kept["job"], "images": tuple(kept["job"]["images"])})
            done = RowsDone(**kept["done"])
        except (OSError, ValueError, TypeError, KeyError):
            return RowsDone()
        # A record without its rows is what is left where a kill came just after the finished file appeared.
        if self._stream.seek(0, os.SEEK_END) < done.size:
            return RowsDone()
        if differences := self.job.differences(job):
            raise DataError(
                f"{self.path}: holds {done.rows:,} rows of another job ({', '.join(differences)} differ); "
                "finish that one, remove this file, or name another with --out"
            )
        return done
