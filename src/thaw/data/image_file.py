"""Reads the content of image files, and of files only: a pipe or a device would keep a command waiting forever."""

from __future__ import annotations

import stat
from pathlib import Path

from thaw.errors import UnreadableImage

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_image_file(file: Path) -> bytes:
    """The content of a file; raises `UnreadableImage` with the reason if it is missing, forbidden or not a file."""
    try:
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode):
            raise UnreadableImage(f"{_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a file")
        return file.read_bytes()
    except (FileNotFoundError, ValueError) as error:
        # A path with a null character is a ValueError.
        raise UnreadableImage("no such file") from error
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from error
