"""Files that arrive from the browser: small ones whole, large ones in parts, which wait in a folder of the project."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from thaw.errors import WriteError
from thaw.formats import size as shown_size
from thaw.studio.disk_room import check_room
from thaw.web.limits import RequestRefused
from thaw.writing import explained

MAX_BYTES = 16 << 30
"""Of one file."""
_MAX_WAITING = 4
_GIVEN_UP = 60
"""Seconds after which a file of which no part arrives makes room for another."""
_KEY = re.compile(r"[0-9a-f-]{8,40}")
_SUFFIX = ".part"


@dataclass(frozen=True)
class Part:
    """A part of a file.

    Attributes:
        key: Chosen by the page, the same for all parts of a file.
        at: Its position in the file, in bytes.
        size: Of the whole file, in bytes.
        data: The bytes.
    """

    key: str
    at: int
    size: int
    data: bytes


class Uploads:
    """The files that are arriving; its methods can be called from any thread."""

    def __init__(self, folder: Path) -> None:
        """Forget what was left by a Studio that was killed."""
        self._folder = folder
        self._guard = threading.Lock()
        with suppress(OSError):
            for file in folder.glob(f"*{_SUFFIX}"):
                file.unlink()
            folder.rmdir()

    @contextmanager
    def receive(self, part: Part) -> Iterator[BinaryIO | None]:
        """Yield the whole file if this is its last part, else `None`; it is gone after the block.

        Raises:
            RequestRefused: The part does not fit what has arrived.
            WriteError: The disk is full; the file has to be sent again.
        """
        if not _KEY.fullmatch(part.key) or not 0 <= part.at <= part.at + len(part.data) <= part.size:
            raise RequestRefused(422, "bad_request", "the request is not what this URL expects")
        if part.size > MAX_BYTES:
            raise RequestRefused(413, "too_large", f"larger than {shown_size(MAX_BYTES)}")
        if len(part.data) == part.size:
            yield io.BytesIO(part.data)
            return
        file = self._folder / f"{part.key}{_SUFFIX}"
        with self._guard:
            self._keep(file, part)
        if part.at + len(part.data) < part.size:
            yield None
            return
        try:
            with file.open("rb") as stream:
                yield stream
        finally:
            file.unlink(missing_ok=True)

    def _keep(self, file: Path, part: Part) -> None:
        """Append a part to what has arrived of its file; on a full disk nothing of it is left."""
        present = file.stat().st_size if file.is_file() else 0
        if part.at != present or not part.data:
            raise RequestRefused(409, "order", "a part of the file is missing; send it again")
        if not present:
            self._check_room(part.size)
        try:
            with explained(file), file.open("ab") as stream:
                stream.write(part.data)
        except WriteError:
            file.unlink(missing_ok=True)
            raise

    def _check_room(self, size: int) -> None:
        with explained(self._folder):
            self._folder.mkdir(exist_ok=True)
            waiting = sorted(self._folder.glob(f"*{_SUFFIX}"), key=lambda file: file.stat().st_mtime)
            if len(waiting) >= _MAX_WAITING and time.time() - waiting[0].stat().st_mtime > _GIVEN_UP:
                waiting.pop(0).unlink()
            if len(waiting) >= _MAX_WAITING:
                raise RequestRefused(503, "saturated", "too many files are arriving; try again in a moment", 1)
            check_room(self._folder, size)
