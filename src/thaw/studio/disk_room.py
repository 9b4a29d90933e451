"""Whether there is room on the disk for what is about to be written."""

from __future__ import annotations

import shutil
from pathlib import Path

from thaw.errors import WriteError
from thaw.formats import size


def check_room(folder: Path, needed: int) -> None:
    """Raise `WriteError` where a folder, which may be still to be made, has no room for so many bytes."""
    free = shutil.disk_usage(folder if folder.is_dir() else folder.parent).free
    if free < needed:
        raise WriteError(folder, f"the disk is full: {size(needed)} needed, {size(free)} free")
