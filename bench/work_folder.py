"""The folder in which a benchmark keeps its results, so that they are not computed again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def use_work_folder(work: Path, settings: Iterable[str]) -> None:
    """Make a folder for the results of some settings, and keep Thaw's cache in it, which benchmarks clear.

    Args:
        work: The folder.
        settings: What all results in it have in common.

    Raises:
        SystemExit: It has results of other settings.
    """
    work.mkdir(parents=True, exist_ok=True)
    os.environ["THAW_CACHE"] = str(work.absolute() / "cache")
    file, given = work / "settings.txt", "\n".join(sorted(settings))
    if file.exists() and file.read_text(encoding="utf-8") != given:
        raise SystemExit(f"{work}: its results are of other settings, listed in {file}; give another folder as --work")
    file.write_text(given, encoding="utf-8")
