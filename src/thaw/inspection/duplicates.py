"""Duplicate images of a data set, and those that leak from one given split into another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thaw.cores import worker_count
from thaw.data.leaks import pairs_across_splits
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.inspection.linear_probe import Features, fit_head, sample_of
from thaw.progress import OnProgress


@dataclass(frozen=True)
class DuplicatePair:
    """Two images of the same scene.

    Attributes:
        first, second: Rows in the manifest, the lower one first.
        correlation: Correlation of the whitened thumbnails, -1..1; 1 for identical files.
        exact: Whether the files are identical, byte for byte.
    """

    first: int
    second: int
    correlation: float
    exact: bool


@dataclass(frozen=True)
class Leak:
    """Duplicates across two given splits, and how much they inflate the accuracy of a linear head.

    Attributes:
        splits: The two splits, the earlier one of train, val and test first.
        accuracy: On the whole second split, after fitting on train, 0..1.
        accuracy_without_leaks: On the images of the second split without a duplicate in train, 0..1.
            Both are `None` where the first split is not train, train has one class, or no image would be left.
    """

    splits: tuple[str, str]
    duplicates: tuple[DuplicatePair, ...]
    accuracy: float | None
    accuracy_without_leaks: float | None


def find_duplicates(manifest: Manifest, pixels: PixelStore, on_progress: OnProgress) -> tuple[DuplicatePair, ...]:
    """Find identical files and near-duplicates among the readable images, in the order of their rows.

    Of many identical files, each is paired with the first one, and with the first one of every other given split.
    """
    digests, splits = manifest.column("sha256"), manifest.column("split")
    # Of each content, the first row, and that of each split.
    first_rows: defaultdict[str, dict[str | None, int]] = defaultdict(dict)
    # Empty images have no near-duplicates, so identical files are collected on their own.
    pairs: dict[tuple[int, int], float] = {}
    for row, (digest, status) in enumerate(zip(digests, manifest.column("status"), strict=True)):
        if status == "ok":
            earlier = first_rows[digest]
            own = next(iter(earlier), None)
            pairs |= {(first, row): 1.0 for split, first in earlier.items() if split == own or split != splits[row]}
            earlier.setdefault(splits[row], row)
    for near in pixels.duplicates(worker_count(), on_progress):
        pairs.setdefault((near.first, near.second), near.correlation)
    return tuple(
        DuplicatePair(first, second, correlation, digests[first] == digests[second])
        for (first, second), correlation in sorted(pairs.items())
    )


def find_leaks(
    duplicates: Sequence[DuplicatePair], splits: Sequence[str | None], features: Features | None
) -> tuple[Leak, ...]:
    """Find duplicates across the given splits.

    Args:
        duplicates: All duplicate pairs of the data set.
        splits: Given split of each row of the manifest, `None` without one.
        features: Features to measure the effect of a leak with; `None` where a linear head cannot be fitted.
    """
    by_rows = {(pair.first, pair.second): pair for pair in duplicates}
    leaks = []
    for names, pairs in pairs_across_splits(splits, list(by_rows)).items():
        accuracy, without = None, None
        if features is not None and names[0] == "train":
            accuracy, without = _accuracies(names[1], {row for pair in pairs for row in pair}, splits, features)
        leaks.append(Leak(names, tuple(by_rows[pair] for pair in pairs), accuracy, without))
    return tuple(leaks)


def _accuracies(
    tested: str, leaked: set[int], splits: Sequence[str | None], features: Features
) -> tuple[float | None, float | None]:
    """Accuracy on the tested split of a head fitted on train, with and without the leaked rows."""
    given = np.array([splits[row] for row in features.rows])
    train, test = given == "train", given == tested
    clean = test & ~np.isin(features.rows, list(leaked))
    if not clean.any() or len(np.unique(features.classes[train])) < 2:
        return None, None
    fitted = sample_of(features, np.flatnonzero(train))
    head = fit_head(features.values[fitted], features.classes[fitted])
    return (
        float(head.score(features.values[test], features.classes[test])),
        float(head.score(features.values[clean], features.classes[clean])),
    )
