"""What several processes must agree on before they work together, checked in a second instead of found out in hours."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from thaw.data.dataset import Dataset
from thaw.errors import TrainingError
from thaw.formats import count
from thaw.processes import Process
from thaw.recipe import Recipe
from thaw.writing import explained


def check_same(process: Process, what: str, value: str, remedy: str) -> None:
    """Raise `TrainingError` unless a value is the same in all processes."""
    values = process.gathered(value)
    for rank, other in enumerate(values):
        if other != values[0]:
            raise TrainingError(
                f"process {rank} has another {what} ({_short(other)}) than process 0 ({_short(values[0])}); {remedy}"
            )


def check_agreement(process: Process, dataset: Dataset, recipe: Recipe, folders: Mapping[str, Path]) -> None:
    """Raise `TrainingError` unless all processes have one recipe and data set, and see the same folders.

    Args:
        process: This process.
        dataset: Its images; their content is compared when they are decoded.
        recipe: What was requested.
        folders: Folders that must be the same, by what to call them.
    """
    if process.count == 1:
        return
    settings = hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()[:8]
    check_same(process, "recipe", settings, "start all with the same settings")
    check_same(process, "list of images", _described(dataset), "give all the same images and labels")
    for name, folder in folders.items():
        _check_seen(process, name, folder)


def _described(dataset: Dataset) -> str:
    """How many images there are, and a checksum of their names, labels, splits and groups."""
    table = dataset.manifest.table
    content = repr([(name, table.column(name).to_pylist()) for name in ("path", "labels", "split", "group")])
    digest = hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{count(len(dataset.manifest), 'image')}, checksum {digest}"


def _check_seen(process: Process, name: str, folder: Path) -> None:
    """Raise `TrainingError` unless what the main process writes into a folder is there for all."""
    token = folder / f".seen-by-all-{secrets.token_hex(8)}"

    def write() -> str:
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            token.touch()
        return token.name

    written = process.from_main(write)
    seen = process.gathered("1" if (folder / written).exists() else str(folder))
    if process.is_main:
        with suppress(OSError):
            token.unlink()
    for rank, answer in enumerate(seen):
        if answer != "1":
            raise TrainingError(
                f"process {rank} does not see {name} of process 0 in {answer}; choose a folder that all machines share"
            )


def _short(value: str) -> str:
    return value if len(value) <= 80 else f"{value[:79]}…"
