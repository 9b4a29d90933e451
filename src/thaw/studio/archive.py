"""Reads zip files that may be damaged or hostile: nothing is unpacked, and no more is read than is asked for."""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from typing import BinaryIO

from thaw.errors import DataError
from thaw.formats import size as shown_size

MAX_ENTRIES = 200_000
MAX_RATIO = 200
"""What an archive may hold, as a multiple of its own size; images hardly shrink, but drawings may."""
_MAX_SMALL = 64 << 20
"""What any archive may hold."""
_MAX_DIRECTORY = 64 << 20
"""Bytes of the list of entries, which Python reads whole."""
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
)
_ENCRYPTED, _MODE_SHIFT = 0x1, 16


class Refused(Exception):
    """A file is not added; the message is the reason."""


class Archive:
    """A zip file, open for reading."""

    def __init__(self, stream: BinaryIO) -> None:
        """Read the list of entries.

        Raises:
            DataError: It is no zip file, or has too many entries.
        """
        total = stream.seek(0, 2)
        _check_directory(stream, total)
        try:
            self._archive = zipfile.ZipFile(stream)
        except (*_DAMAGED, OSError) as error:
            raise DataError("the zip file is damaged") from error
        self.files = [one for one in self._archive.infolist() if not one.is_dir()]
        if len(self.files) > MAX_ENTRIES:
            raise DataError(f"the zip file has {len(self.files):,} entries; {MAX_ENTRIES:,} are read at once")
        self._most = max(_MAX_SMALL, MAX_RATIO * total)
        self._rest = self._most

    def read(self, file: zipfile.ZipInfo, limit: int) -> bytes:
        """At most a number of the bytes of a file.

        Raises:
            Refused: It is a link, encrypted or damaged.
            DataError: What was read of the archive so far is far more than its size.
        """
        if stat.S_ISLNK(file.external_attr >> _MODE_SHIFT):
            raise Refused("a link")
        if file.flag_bits & _ENCRYPTED:
            raise Refused("encrypted")
        try:
            with self._archive.open(file) as stream:
                content = stream.read(min(limit, self._rest + 1))
        except (*_DAMAGED, OSError) as error:
            raise Refused("damaged in the zip file") from error
        self._rest -= len(content)
        if self._rest < 0:
            raise DataError(f"the zip file expands to more than {shown_size(self._most)}")
        return content


def _check_directory(stream: BinaryIO, total: int) -> None:
    """Raise `DataError` where the list of entries is missing or too large to be read into memory."""
    begin = max(0, total - (1 << 16) - 22)
    stream.seek(begin)
    tail = stream.read()
    sizes = _numbers("<L", tail, b"PK\5\6", 12)
    # Of archives that are larger than 4 GB, the size stands elsewhere.
    large = _numbers("<Q", tail, b"PK\6\6", 40)
    if not sizes:
        raise DataError("this is not a zip file")
    if any(size > _MAX_DIRECTORY for size in (*(one for one in sizes if one != 0xFFFFFFFF), *large)):
        raise DataError(f"the zip file has too many entries; {MAX_ENTRIES:,} are read at once")
    stream.seek(0)


def _numbers(kind: str, data: bytes, signature: bytes, offset: int) -> list[int]:
    """The number at an offset from each place of a signature."""
    places = (one.start() + offset for one in re.finditer(signature, data))
    length = struct.calcsize(kind)
    return [struct.unpack_from(kind, data, place)[0] for place in places if place + length <= len(data)]
