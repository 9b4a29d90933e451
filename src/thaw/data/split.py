"""Train, validation and test: an image's place depends on itself, not on how many others there are.

A *unit* is what stays together: the images of a group, files with equal bytes, and near-duplicates; a file in two
groups joins them. Each unit has a draw in [0, 1), made from the seed and its own name. Draws below the test share go to
test, the next up to test + val to val, the rest to train. Then, class by class, the fewest units with draws
nearest a border change sides until each split is within a third of its quota (or one unit) and has every
class. In multilabel data a unit counts for the quota of its rarest class.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, floor

import numpy as np

from thaw.data.manifest import SPLITS, Manifest
from thaw.errors import DataError
from thaw.recipe import SplitSettings

MIN_UNITS = {"train": 2, "val": 1, "test": 1}
"""Units of each class that each split has at least; a test that is not asked for needs none."""


@dataclass(frozen=True)
class SplitResult:
    """A manifest in which every readable image has a split; `notes` are sentences for a person to read."""

    manifest: Manifest
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Unit:
    """Rows that stay together, their classes, their draw, and the split they had in an earlier run."""

    rows: tuple[int, ...]
    classes: frozenset[str]
    draw: float
    fixed: str | None


@dataclass(frozen=True)
class _Fractions:
    """The shares of the units that validation and the test get; the draws of each split are one interval."""

    val: float
    test: float

    @property
    def minimum(self) -> dict[str, int]:
        return MIN_UNITS if self.test else {**MIN_UNITS, "test": 0}

    def split_of(self, draw: float) -> str:
        if draw < self.test:
            return "test"
        return "val" if draw < self.test + self.val else "train"

    def distance(self, draw: float, split: str) -> float:
        """How far a draw is from those that go to a split by themselves."""
        low, high = {
            "test": (0.0, self.test),
            "val": (self.test, self.test + self.val),
            "train": (self.test + self.val, 1.0),
        }[split]
        return max(low - draw, draw - high, 0.0)


def assign(
    manifest: Manifest,
    settings: SplitSettings,
    previous: Manifest | None = None,
    duplicates: Sequence[tuple[int, int]] = (),
) -> SplitResult:
    """Give every readable image of a decoded manifest a split, and unreadable images none.

    `duplicates` are pairs of rows that show the same picture. Splits that the data brings are kept; a validation split
    that is missing there is taken out of train. Units that `previous`, the manifest of an earlier run, knows keep the
    split they have there. Raises `DataError` with each class that has too few units.
    """
    status = manifest.column("status")
    given = [split if ok == "ok" else None for split, ok in zip(manifest.column("split"), status, strict=True)]
    if not any(given):
        rows = [row for row, ok in enumerate(status) if ok == "ok"]
        fractions = _Fractions(settings.val, settings.test)
        units = _units(manifest, rows, settings.seed, _earlier_splits(previous, SPLITS), duplicates)
        return SplitResult(_with_splits(manifest, given, _deal(manifest, units, fractions)))
    if "train" not in given:
        raise DataError(f"{manifest.root}: the data brings splits, but no readable image of it is in train")
    if "val" in given:
        kept = _with_splits(manifest, given, {})
        return SplitResult(kept, (*_absent_classes(kept), *_leaks(kept, duplicates)))
    rows = [row for row, split in enumerate(given) if split == "train"]
    units = _units(manifest, rows, settings.seed, _earlier_splits(previous, ("train", "val")), duplicates)
    kept = _with_splits(manifest, given, _deal(manifest, units, _Fractions(settings.val, 0.0)))
    note = f"the data brings no validation split; {settings.val:.0%} of its train images were taken for it"
    return SplitResult(kept, (note, *_absent_classes(kept), *_leaks(kept, duplicates)))


def _with_splits(manifest: Manifest, given: Sequence[str | None], dealt: dict[int, str]) -> Manifest:
    return manifest.with_columns({"split": [dealt.get(row, split) for row, split in enumerate(given)]})


def _names(manifest: Manifest) -> list[tuple[str, ...]]:
    """What each row is known by: its group, if it has one, and its bytes."""
    pairs = zip(manifest.column("group"), manifest.column("sha256"), strict=True)
    return [(f"group {group}", f"sha256 {digest}") if group else (f"sha256 {digest}",) for group, digest in pairs]


def _earlier_splits(previous: Manifest | None, allowed: Sequence[str]) -> dict[str, str]:
    """The split that each name had in an earlier run."""
    if previous is None:
        return {}
    pairs = zip(_names(previous), previous.column("split"), strict=True)
    return {name: split for names, split in pairs if split in allowed for name in names}


def _units(
    manifest: Manifest,
    rows: Sequence[int],
    seed: int,
    earlier: dict[str, str],
    duplicates: Sequence[tuple[int, int]],
) -> list[_Unit]:
    names, labels = _names(manifest), manifest.column("labels")
    units = []
    for members in joined(manifest, rows, duplicates):
        known = sorted({name for row in members for name in names[row]})
        had = Counter(earlier[name] for name in known if name in earlier)
        units.append(
            _Unit(
                rows=tuple(members),
                classes=frozenset(label for row in members for label in labels[row]),
                draw=_draw(seed, known[0]),
                fixed=max(reversed(SPLITS), key=lambda split: had[split]) if had else None,
            )
        )
    return units


def joined(manifest: Manifest, rows: Sequence[int], duplicates: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """Rows that are alike, or share bytes or a group, directly or through others, together (union-find)."""
    names = _names(manifest)
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while (parent := parents.setdefault(name, name)) != name:
            parents[name] = parents[parent]
            name = parent
        return name

    for row in rows:
        for name in names[row]:
            parents[root(name)] = root(names[row][0])
    for one, other in duplicates:
        parents[root(names[one][0])] = root(names[other][0])
    members: defaultdict[str, list[int]] = defaultdict(list)
    for row in rows:
        members[root(names[row][0])].append(row)
    yield from members.values()


def groups_of(manifest: Manifest, rows: np.ndarray, duplicates: Sequence[tuple[int, int]]) -> np.ndarray:
    """A number for each row (N,), the same for rows that a split would keep together; `duplicates` are near-duplicates."""
    unit_of = {
        row: number for number, members in enumerate(joined(manifest, rows.tolist(), duplicates)) for row in members
    }
    return np.array([unit_of[row] for row in rows.tolist()])


def _draw(seed: int, name: str) -> float:
    """A number in [0, 1) that depends on nothing but the seed and the name."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / (1 << 53)


def _deal(manifest: Manifest, units: Sequence[_Unit], fractions: _Fractions) -> dict[int, str]:
    """The split of each row of the units."""
    counts = Counter(name for unit in units for name in unit.classes)
    _check_enough(manifest, counts, fractions)
    rarest_first = sorted(manifest.classes, key=lambda name: counts[name])
    strata: defaultdict[str | None, list[_Unit]] = defaultdict(list)
    for unit in units:
        strata[next((name for name in rarest_first if name in unit.classes), None)].append(unit)
    splits: dict[_Unit, str] = {}
    for stratum in strata.values():
        splits |= _near_quota(sorted(stratum, key=lambda unit: unit.draw), fractions)
    _cover(manifest, rarest_first, splits, fractions)
    return {row: split for unit, split in splits.items() for row in unit.rows}


def _near_quota(stratum: Sequence[_Unit], fractions: _Fractions) -> dict[_Unit, str]:
    """The splits of units in the order of their draws, with the borders moved as far as is needed."""
    fixed = Counter(unit.fixed for unit in stratum)
    free = [unit for unit in stratum if unit.fixed is None]
    drawn = Counter(fractions.split_of(unit.draw) for unit in free)
    test = _within_tolerance(drawn["test"], fractions.test * len(stratum), fixed["test"])
    test = min(test, len(free))
    val = _within_tolerance(drawn["test"] + drawn["val"] - test, fractions.val * len(stratum), fixed["val"])
    val = min(val, len(free) - test)
    dealt = ["test"] * test + ["val"] * val + ["train"] * (len(free) - test - val)
    kept = {unit: unit.fixed for unit in stratum if unit.fixed is not None}
    return dict(zip(free, dealt, strict=True)) | kept


def _within_tolerance(count: int, quota: float, fixed: int) -> int:
    """The nearest count that, with those that are fixed, is within tolerance of a quota."""
    tolerance = max(1.0, quota / 3)
    low, high = ceil(quota - tolerance) - fixed, floor(quota + tolerance) - fixed
    return max(0, min(max(count, low), high))


def _cover(manifest: Manifest, rarest_first: Sequence[str], splits: dict[_Unit, str], fractions: _Fractions) -> None:
    """Move units until each class has its minimum in every split, from where more than the minimum are."""
    have = Counter((name, split) for unit, split in splits.items() for name in unit.classes)
    for name in rarest_first:
        for split, least in fractions.minimum.items():
            while have[name, split] < least:
                unit = _donor(name, split, splits, have, fractions)
                if unit is None:
                    raise DataError(
                        f"{manifest.root}: no images of {name} can go to {split}: those tied by "
                        "group, equal bytes, likeness or an earlier run leave none free; add images of it"
                    )
                for other in unit.classes:
                    have[other, splits[unit]] -= 1
                    have[other, split] += 1
                splits[unit] = split


def _donor(
    name: str, split: str, splits: dict[_Unit, str], have: Counter[tuple[str, str]], fractions: _Fractions
) -> _Unit | None:
    """The unit of a class with the draw nearest to a split, among those that their own split can spare."""
    spare = [
        unit
        for unit, current in splits.items()
        if name in unit.classes
        and current != split
        and unit.fixed is None
        and all(have[other, current] > fractions.minimum[current] for other in unit.classes)
    ]
    return min(spare, key=lambda unit: (fractions.distance(unit.draw, split), unit.draw), default=None)


def _check_enough(manifest: Manifest, counts: Counter[str], fractions: _Fractions) -> None:
    needed = sum(fractions.minimum.values())
    few = [
        f"{name} has {counts[name]}, needs {needed - counts[name]} more"
        for name in manifest.classes
        if counts[name] < needed
    ]
    if few:
        without_test = ", or do without a test (split.test=0)" if fractions.test else ""
        raise DataError(
            f"{manifest.root}: too few images to split: {'; '.join(few)} (near-duplicates, and the images of a "
            f"group, count once); add images or leave the class out{without_test}"
        )


def _absent_classes(manifest: Manifest) -> list[str]:
    """Notes on classes that given splits lack; raises `DataError` for a class that train lacks."""
    counts = manifest.counts()
    present = [split for split in SPLITS if len(manifest.indices(split))]
    absent = {split: [name for name in counts if not counts[name][split]] for split in present}
    if absent["train"]:
        raise DataError(f"{manifest.root}: train has no image of {', '.join(absent['train'])}")
    return [f"{split} has no image of {', '.join(names)}" for split, names in absent.items() if names]


def _leaks(manifest: Manifest, duplicates: Sequence[tuple[int, int]]) -> list[str]:
    """Notes on files, groups and near-duplicates that stand in two of the given splits."""
    notes = []
    splits, digests = manifest.column("split"), manifest.column("sha256")
    for column, what in (("sha256", "identical images"), ("group", "groups")):
        members: defaultdict[str, set[str]] = defaultdict(set)
        for split, value in zip(splits, manifest.column(column), strict=True):
            if split and value:
                members[split].add(value)
        for one, other in combinations(SPLITS, 2):
            if shared := len(members[one] & members[other]):
                notes.append(f"leak: {shared} {what} in {one} and {other}")
    for pair, rows in pairs_across_splits(splits, duplicates).items():
        if count := sum(digests[one] != digests[other] for one, other in rows):
            notes.append(f"leak: {count} near-duplicates in {' and '.join(pair)}")
    return notes


def pairs_across_splits(
    splits: Sequence[str | None], pairs: Sequence[tuple[int, int]]
) -> dict[tuple[str, str], list[tuple[int, int]]]:
    """Pairs of rows in two different splits, by the names of the two in the order of `SPLITS`.

    Args:
        splits: Split of each row, `None` without one.
        pairs: Pairs of rows.
    """
    across: defaultdict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for pair in pairs:
        one, other = splits[pair[0]], splits[pair[1]]
        if one and other and one != other:
            first, second = sorted((one, other), key=SPLITS.index)
            across[first, second].append(pair)
    return dict(across)
