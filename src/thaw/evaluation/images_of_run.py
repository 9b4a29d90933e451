"""Which images of an evaluation are images of the classifier's own run, recognised by equal bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from thaw.checksums import sha256_of
from thaw.data.manifest import SPLITS, Manifest


def count_images_of_run(run: Manifest, files: Iterable[Path]) -> dict[str, int]:
    """How many files have the bytes of an image of a run, by the split of that image.

    Only files of a size that occurs in the run are read.

    Args:
        run: The images of the run with their splits.
        files: The files; those that cannot be read are in no run.
    """
    rank = {split: number for number, split in enumerate(SPLITS)}
    split_of: dict[str, str] = {}
    for split, digest in zip(run.column("split"), run.column("sha256"), strict=True):
        if split and digest:
            split_of[digest] = min(split, split_of.get(digest, split), key=rank.__getitem__)
    sizes = set(run.column("bytes"))
    counts = Counter(split_of.get(digest) for file in files if (digest := _digest(file, sizes)))
    return {split: counts[split] for split in SPLITS if counts[split]}


def _digest(file: Path, sizes: set[int]) -> str | None:
    """The SHA-256 of a file that has one of some sizes."""
    try:
        return sha256_of(file) if file.stat().st_size in sizes and file.is_file() else None
    except (OSError, ValueError):
        return None
