"""What reads image files, for their digests or their pixels.

It can be replaced (`reading_with`): by other machines, each with a part of the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

from thaw.data.decoding import DecodedFile, Decoding, decode_files
from thaw.data.image_file import read_image_file
from thaw.errors import UnreadableImage

FEWEST_FOR_NODES = 256
"""Files below which this machine reads them sooner than the processes of a cluster's nodes start."""

_BLOCK = 4096
"""Files that wait for a thread: each takes some memory."""


class Reader(Protocol):
    """Reads many image files at once and gives their results in their order, with only some in memory at a time."""

    def digests(self, files: Sequence[Path], workers: int) -> Iterator[str]:
        """As `digest_of` each file, `workers` of them at the same time on this machine."""

    def decoded(self, files: Sequence[Path], decoding: Decoding) -> Iterator[DecodedFile]:
        """As `thaw.data.decoding.decode_file` each file."""


class ReaderHere:
    """A `Reader` on this machine."""

    def digests(self, files: Sequence[Path], workers: int) -> Iterator[str]:
        """By threads."""
        with ThreadPoolExecutor(workers) as pool:
            for start in range(0, len(files), _BLOCK):
                yield from pool.map(digest_of, files[start : start + _BLOCK])

    def decoded(self, files: Sequence[Path], decoding: Decoding) -> Iterator[DecodedFile]:
        """By threads, or by processes on many cores."""
        return decode_files(files, decoding)


def reads_on_nodes(files: int) -> bool:
    """Whether so many files are read on the nodes of a cluster, if there is one."""
    return files >= FEWEST_FOR_NODES


def digest_of(file: Path) -> str:
    """The SHA-256 of a file as hexadecimal digits, or the reason why it cannot be read."""
    try:
        return hashlib.sha256(read_image_file(file)).hexdigest()
    except UnreadableImage as error:
        return str(error)


HERE = ReaderHere()

_READER: ContextVar[Reader] = ContextVar("reader", default=HERE)


@contextmanager
def reading_with(reader: Reader) -> Iterator[None]:
    """Files are read by another reader while the block runs."""
    token = _READER.set(reader)
    try:
        yield
    finally:
        _READER.reset(token)


def current_reader() -> Reader:
    """What reads files now."""
    return _READER.get()
