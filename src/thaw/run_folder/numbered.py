"""Folders that commands number: `train-1`, `inspect-1`, `search-1`, with the next free number for each new one."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

from thaw.marker import mark
from thaw.writing import check_writable, explained

_NAME = re.compile(r"(train|inspect|search)-([0-9]{1,9})")


@dataclass(frozen=True)
class NumberedFolder:
    """A folder `kind-N` that a command leaves; nothing in it is ever overwritten by another command."""

    path: Path
    kind: ClassVar[Literal["train", "inspect", "search"]]

    @classmethod
    def create(cls, parent: Path) -> Self:
        """Make `parent/kind-N` with the next free N; safe when several start at once.

        Raises `WriteError` where it cannot be made.
        """
        check_writable(parent)
        with explained(parent):
            parent.mkdir(parents=True, exist_ok=True)
            folder = cls._next(parent)
            mark(folder.path)
            return folder

    @classmethod
    def numbered(cls, parent: Path, number: int) -> Self:
        """The folder of a number under a parent, which need not be there yet."""
        return cls(parent / f"{cls.kind}-{number}")

    @classmethod
    def is_name(cls, name: str) -> bool:
        """Whether a folder of this kind can have a name."""
        match = _NAME.fullmatch(name)
        return match is not None and match[1] == cls.kind

    @classmethod
    def named(cls, parent: Path, name: str) -> Self | None:
        """The folder of a name that anybody may have made up; `None` if there is none of this kind."""
        path = parent / name
        return cls(path) if _number(path, cls.kind) and path.name == name else None

    @classmethod
    def adopt(cls, parent: Path, folder: Path) -> Self:
        """Move a folder that was filled elsewhere to `parent/kind-N`, for the next free N.

        Raises `WriteError` where it cannot be moved.
        """
        with explained(parent):
            adopted = cls._next(parent)
            try:
                # Elsewhere the move replaces an empty folder.
                if sys.platform == "win32":
                    adopted.path.rmdir()
                folder.rename(adopted.path)
            except OSError:
                with suppress(OSError):
                    adopted.path.rmdir()
                raise
            return adopted

    @classmethod
    def _next(cls, parent: Path) -> Self:
        """Make an empty folder with the next free number, which no other process can have made too."""
        number = max((_number(child, cls.kind) for child in parent.iterdir()), default=0)
        while True:
            number += 1
            folder = cls.numbered(parent, number)
            try:
                folder.path.mkdir()
            except FileExistsError:
                continue
            return folder

    @classmethod
    def newest_first(cls, parent: Path) -> list[Self]:
        """All folders of this kind under a parent."""
        found = [path for path in parent.iterdir() if _number(path, cls.kind)] if parent.is_dir() else []
        return [cls(path) for path in sorted(found, key=lambda path: _number(path, cls.kind), reverse=True)]


def _number(folder: Path, kind: str) -> int:
    match = _NAME.fullmatch(folder.name)
    return int(match[2]) if match and match[1] == kind and folder.is_dir() else 0
