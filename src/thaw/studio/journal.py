"""A file that only grows: one JSON object a line, on disk before `append` returns.

A process that is killed while it writes leaves a last line without its end. Nobody was told that such a line is
written, so it is taken away when the file is opened again; every line before it stays.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thaw.atomic import flush_folder
from thaw.errors import DataError, WriteError
from thaw.locks import lock
from thaw.writing import explained

Line = Mapping[str, Any]


class Journal:
    """An open journal, which no other process can open meanwhile; any thread can append. Close it with `close`.

    Attributes:
        file: Where it is.
        lines: What was there when it was opened.
    """

    def __init__(self, file: Path) -> None:
        """Open a journal, or make an empty one.

        Raises:
            DataError: Another process has it open, or a line is not a JSON object.
            WriteError: It cannot be written.
        """
        self.file = file
        self._guard = threading.Lock()
        with explained(file):
            is_new = not file.exists()
            # Unbuffered, so that one `write` is one call of the system.
            self._stream = file.open("a+b", buffering=0)
            if is_new:
                flush_folder(file.parent)
        if lock(self._stream.fileno()) is False:
            self._stream.close()
            raise DataError(f"{file}: is open in another process; close that Studio first")
        try:
            self.lines: tuple[Line, ...] = self._read()
        except DataError:
            self._stream.close()
            raise

    def forget(self) -> None:
        """Free the memory of `lines`, which are read."""
        self.lines = ()

    def append(self, lines: Sequence[Line]) -> None:
        """Write lines and wait until they are on disk; raises `WriteError`, and then none of them is kept."""
        if not lines:
            return
        text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
        with self._guard, explained(self.file):
            self._check_in_place()
            end = self._stream.seek(0, os.SEEK_END)
            try:
                _write(self._stream.fileno(), text.encode("utf-8", "backslashreplace"))
                os.fsync(self._stream.fileno())
            except OSError:
                self._stream.truncate(end)
                raise

    def _check_in_place(self) -> None:
        """Raise `WriteError` if the open file is no longer the one in the folder: what is written would be lost."""
        try:
            is_in_place = os.path.samestat(os.fstat(self._stream.fileno()), self.file.stat())
        except OSError:
            is_in_place = False
        if not is_in_place:
            problem = "was removed or replaced while Studio is open; put it back, or save the labels as CSV"
            raise WriteError(self.file, problem)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _read(self) -> tuple[Line, ...]:
        """Every line; the file ends after the last complete one."""
        self._stream.seek(0)
        content = self._stream.read() or b""
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            with explained(self.file):
                self._stream.truncate(complete)
        return tuple(self._parsed(number, line) for number, line in enumerate(content[:complete].split(b"\n")[:-1], 1))

    def _parsed(self, number: int, line: bytes) -> Line:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.file}: line {number} is damaged; restore the file from a copy") from error
        if not isinstance(value, dict):
            raise DataError(f"{self.file}: line {number} is not a JSON object; restore the file from a copy")
        return value


def _write(handle: int, content: bytes) -> None:
    """Write all of it; the system may take a part at a time."""
    while content:
        content = content[os.write(handle, content) :]
