"""Divides split units into train, validation and test by their numbers; `thaw.data.split` says how."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

from thaw.data.manifest import Manifest
from thaw.errors import DataError

MIN_UNITS = {"train": 2, "val": 1, "test": 1}
"""Minimum number of units of each class in each split; 0 for a test split that is not requested."""

_LARGE = 2
"""How many times the images of the smallest split a unit has at least that goes to train."""

_ALWAYS_SMALL = 10
"""Images of a unit that are never too many."""

_ATTEMPTS = 100
"""How often units are divided again with other numbers. 150 of 420 sets with rare labels on the same images are not
divided by the first numbers; 134 of these can be, half of them after 3 attempts and all after 64."""

_RARE = 50
"""Units of a class up to which they get other numbers; a class with more has enough to move."""


@dataclass(frozen=True)
class Unit:
    """Rows that stay together, their classes, their number in [0, 1), and their split in an earlier run."""

    rows: tuple[int, ...]
    classes: frozenset[str]
    number: float
    previous_split: str | None


@dataclass(frozen=True)
class Fractions:
    """The fractions of the units in validation and test; each split is one interval of numbers."""

    val: float
    test: float

    @property
    def minimum(self) -> dict[str, int]:
        """The fewest units of each class in each split."""
        return MIN_UNITS if self.test else {**MIN_UNITS, "test": 0}

    def split_of(self, number: float) -> str:
        """The split whose interval has a number."""
        if number < self.test:
            return "test"
        return "val" if number < self.test + self.val else "train"

    def distance(self, number: float, split: str) -> float:
        """Distance of a number from the interval of a split."""
        low, high = {
            "test": (0.0, self.test),
            "val": (self.test, self.test + self.val),
            "train": (self.test + self.val, 1.0),
        }[split]
        return max(low - number, number - high, 0.0)


def pseudo_random(seed: int, name: str) -> float:
    """A number in [0, 1) that depends only on the seed and the name."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / (1 << 53)


def assign_units(manifest: Manifest, units: Sequence[Unit], fractions: Fractions, has_settings: bool) -> dict[int, str]:
    """The split of each row of the units.

    Args:
        manifest: Its classes are those of the units.
        units: All units to split.
        fractions: Of validation and test.
        has_settings: Whether an error may name a setting as a remedy.

    Raises:
        DataError: A class has too few units, or no split of them was found that has every class everywhere.
    """
    counts = Counter(name for unit in units for name in unit.classes)
    _check_enough(manifest, counts, fractions, has_settings)
    rarest_first = sorted(manifest.classes, key=lambda name: counts[name])
    splits = _by_quota(units, rarest_first, fractions)
    if lacking := _ensure_minimum(rarest_first, splits, fractions):
        name, split = lacking
        found = _divided_again(units, rarest_first, counts, fractions)
        if found is None:
            labels = "other labels of the same images, " if manifest.task == "multilabel" else ""
            raise DataError(
                f"{manifest.root}: no images of {name} are available for {split}: {labels}groups, identical files, "
                "near-duplicates or an earlier run tie them to other splits; add images of this class"
            )
        splits = found
    return {row: split for unit, split in splits.items() for row in unit.rows}


def _divided_again(
    units: Sequence[Unit], rarest_first: Sequence[str], counts: Counter[str], fractions: Fractions
) -> dict[Unit, str] | None:
    """The first splits that have the minimum of every class, with other numbers for the units of rare classes.

    A unit that has several classes can be moved for one of them and is then missing for another, so that the minimum is
    reached from some splits and not from others. `None` where no unit of a rare class has several, or none is found.
    """
    rare = [name for name in rarest_first if counts[name] <= _RARE]
    few = [unit for unit in units if not unit.classes.isdisjoint(rare)]
    if all(len(unit.classes) == 1 for unit in few):
        return None
    for attempt in range(_ATTEMPTS):
        renumbered = {
            replace(unit, number=pseudo_random(attempt, str(unit.number)), classes=unit.classes & {*rare}): unit
            for unit in few
        }
        divided = _by_quota(list(renumbered), rare, fractions)
        if not _ensure_minimum(rare, divided, fractions):
            others = [unit for unit in units if unit.classes.isdisjoint(rare)]
            splits = _by_quota(others, rarest_first, fractions) | {renumbered[unit]: divided[unit] for unit in divided}
            return None if _ensure_minimum(rarest_first, splits, fractions) else splits
    return None


def _by_quota(units: Sequence[Unit], rarest_first: Sequence[str], fractions: Fractions) -> dict[Unit, str]:
    """The splits of units, of which those with the same rarest class are divided together."""
    strata: defaultdict[str | None, list[Unit]] = defaultdict(list)
    for unit in units:
        strata[next((name for name in rarest_first if name in unit.classes), None)].append(unit)
    splits: dict[Unit, str] = {}
    for stratum in strata.values():
        splits |= _near_quota(sorted(stratum, key=lambda unit: unit.number), fractions)
    return splits


def _near_quota(stratum: Sequence[Unit], fractions: Fractions) -> dict[Unit, str]:
    """The splits of units sorted by their numbers, with the thresholds moved as little as the quotas require."""
    fixed = Counter(unit.previous_split for unit in stratum)
    quota = min(fraction for fraction in (fractions.test, fractions.val) if fraction)
    most = max(_ALWAYS_SMALL, _LARGE * quota * sum(len(unit.rows) for unit in stratum))
    # Large units come last, and are then in train.
    free = sorted((unit for unit in stratum if unit.previous_split is None), key=lambda unit: len(unit.rows) > most)
    initial = Counter(fractions.split_of(unit.number) for unit in free)
    test = _within_tolerance(initial["test"], fractions.test * len(stratum), fixed["test"])
    test = min(test, len(free))
    val = _within_tolerance(initial["test"] + initial["val"] - test, fractions.val * len(stratum), fixed["val"])
    val = min(val, len(free) - test)
    assigned = ["test"] * test + ["val"] * val + ["train"] * (len(free) - test - val)
    kept = {unit: unit.previous_split for unit in stratum if unit.previous_split is not None}
    return dict(zip(free, assigned, strict=True)) | kept


def _within_tolerance(count: int, quota: float, fixed: int) -> int:
    """The count nearest to `count` that, together with the fixed units, is within tolerance of a quota."""
    tolerance = max(1.0, quota / 3)
    low, high = ceil(quota - tolerance) - fixed, floor(quota + tolerance) - fixed
    return max(0, min(max(count, low), high))


def _ensure_minimum(
    rarest_first: Sequence[str], splits: dict[Unit, str], fractions: Fractions
) -> tuple[str, str] | None:
    """Move units until every split has the minimum of each class, from splits that have more.

    Returns:
        The class and the split where no unit is left to move; `None` if every split has enough.
    """
    have = Counter((name, split) for unit, split in splits.items() for name in unit.classes)
    for name in rarest_first:
        for split, minimum in fractions.minimum.items():
            while have[name, split] < minimum:
                unit = _donor(name, split, splits, have, fractions)
                if unit is None:
                    return name, split
                for other in unit.classes:
                    have[other, splits[unit]] -= 1
                    have[other, split] += 1
                splits[unit] = split
    return None


def _donor(
    name: str, split: str, splits: dict[Unit, str], have: Counter[tuple[str, str]], fractions: Fractions
) -> Unit | None:
    """The unit of a class with the number nearest to a split, among those whose own split has enough."""
    available = [
        unit
        for unit, current in splits.items()
        if name in unit.classes
        and current != split
        and unit.previous_split is None
        and all(have[other, current] > fractions.minimum[current] for other in unit.classes)
    ]
    return min(available, key=lambda unit: (fractions.distance(unit.number, split), unit.number), default=None)


def _check_enough(manifest: Manifest, counts: Counter[str], fractions: Fractions, has_settings: bool) -> None:
    needed = sum(fractions.minimum.values())
    without_test = needed - fractions.minimum["test"]
    few = [
        f"{name} has {counts[name]}, needs {needed - counts[name]} more"
        for name in manifest.classes
        if counts[name] < needed
    ]
    if few:
        helps = has_settings and any(without_test <= counts[name] < needed for name in manifest.classes)
        remedy = ", or use no test split (split.test=0)" if helps else ""
        raise DataError(
            f"{manifest.root}: too few images to split: {'; '.join(few)} (near-duplicates, and the images of a "
            f"group, count once); add images or remove the class{remedy}"
        )
