"""Folders that commands number: `train-1`, `inspect-1`, `search-1`, with the next free number for each new one."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

from thaw.in_use import when_closed
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

    @property
    def number(self) -> int:
        """The number in its name; 0 for a folder that has another name."""
        return self.number_of(self.path.name)

    @classmethod
    def number_of(cls, name: str) -> int:
        """The number in a name; 0 for one that is not of this kind."""
        match = _NAME.fullmatch(name)
        return int(match[2]) if match and match[1] == cls.kind else 0

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
        return cls(path) if path.name == name and cls.number_of(name) and path.is_dir() else None

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
                when_closed(lambda: folder.rename(adopted.path))
            except OSError:
                with suppress(OSError):
                    adopted.path.rmdir()
                raise
            return adopted

    @classmethod
    def _next(cls, parent: Path) -> Self:
        """Make an empty folder with the next free number, which no other process can have made too."""
        number = max((folder.number for folder in cls._below(parent)), default=0)
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
        found = cls._below(parent) if parent.is_dir() else []
        return sorted(found, key=lambda folder: folder.number, reverse=True)

    @classmethod
    def _below(cls, parent: Path) -> list[Self]:
        return [cls(path) for path in parent.iterdir() if cls.number_of(path.name) and path.is_dir()]
