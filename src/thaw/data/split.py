"""Train, validation and test: who goes where depends on each image alone, not on the others or on their order.

A *unit* is what must stay together: the images of one group, and files with identical bytes; identical files in
two groups join those groups. Each unit has a draw in [0, 1) made from the seed and its own name. Draws below the
test share go to test, those below test + val to val, the rest to train. Within each class the two borders are then
moved, past as few units as possible, until no split is further from its quota than a third of it (or one unit),
and every split has every class.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, floor

import numpy as np
import pyarrow.compute as pc

from thaw.data.manifest import SPLITS, Manifest
from thaw.errors import DataError
from thaw.recipe import SplitSettings

MIN_TRAIN, MIN_HELD_OUT = 2, 1
"""Units of each class that train, and val and test, have at least."""


@dataclass(frozen=True)
class SplitResult:
    """A manifest in which every readable image has a split; `notes` are sentences that a person should read."""

    manifest: Manifest
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Unit:
    """Rows that stay together: their classes, their draw, and the split they had in an earlier run."""

    rows: tuple[int, ...]
    classes: frozenset[str]
    draw: float
    fixed: str | None


@dataclass(frozen=True)
class _Shares:
    """The share of the units that is held out for validation and for the test."""

    val: float
    test: float

    @property
    def minimum(self) -> dict[str, int]:
        """Units of each class that each split has at least."""
        return {"train": MIN_TRAIN, "val": MIN_HELD_OUT, "test": MIN_HELD_OUT if self.test else 0}

    def split_of(self, draw: float) -> str:
        if draw < self.test:
            return "test"
        return "val" if draw < self.test + self.val else "train"


def assign(manifest: Manifest, settings: SplitSettings, previous: Manifest | None = None) -> SplitResult:
    """Give every readable image a split; needs a decoded manifest, and gives unreadable images none.

    Splits that the data brings are kept; only a missing validation split is taken out of train. Units that
    `previous`, the manifest of an earlier run, knows keep the split they have there. Raises `DataError` with each
    class that has too few units.
    """
    readable = np.array([status == "ok" for status in manifest.column("status")], dtype=bool)
    splits = [split if ok else None for split, ok in zip(manifest.column("split"), readable, strict=True)]
    if not any(splits):
        shares = _Shares(settings.val, settings.test)
        units = list(_units(manifest, np.flatnonzero(readable), settings.seed, previous))
        return SplitResult(_with_splits(manifest, splits, _deal_all(manifest, units, shares)))
    if "train" not in splits:
        raise DataError(f"{manifest.root}: the data brings splits, but none of its readable images is in train")
    notes = []
    if "val" not in splits:
        rows = np.flatnonzero([split == "train" for split in splits])
        units = list(_units(manifest, rows, settings.seed, previous))
        dealt = _deal_all(manifest, units, _Shares(settings.val, 0.0))
        notes.append(f"the data brings no validation split: {settings.val:.0%} of train was taken for it")
    else:
        dealt = {}
    kept = _with_splits(manifest, splits, dealt)
    return SplitResult(kept, (*notes, *_missing_classes(kept), *_leaks(kept)))


def _with_splits(manifest: Manifest, splits: Sequence[str | None], dealt: dict[int, str]) -> Manifest:
    return manifest.with_columns({"split": [dealt.get(row, split) for row, split in enumerate(splits)]})


def _units(
    manifest: Manifest, rows: np.ndarray, seed: int, previous: Manifest | None
) -> Iterator[_Unit]:
    labels = manifest.column("labels")
    earlier = _earlier_splits(previous)
    for members in _joined(manifest, rows):
        names = members.names
        had = Counter(earlier[name] for name in names if name in earlier)
        yield _Unit(
            rows=members.rows,
            classes=frozenset(label for row in members.rows for label in labels[row]),
            draw=_draw(seed, min(names)),
            # Where joined units had several splits, the rarer use is the safer one: test, then val.
            fixed=min(had, key=lambda split: (-had[split], -SPLITS.index(split))) if had else None,
        )
