"""Splits into train, validation and test that stay stable when images are added.

Images that must stay together form one split unit (see `thaw.data.split_units`). Each unit has a pseudo-random number
in [0, 1), a hash of the seed and its name. Numbers below the test fraction go to test, numbers from there to test + val
to validation, and the rest to train. Then, per class, the fewest units with numbers nearest a threshold move until each
split is within a third of its quota (or one unit) and contains every class. A unit with far more images than the quota
goes to train. In multilabel data a unit counts towards the quota of its rarest class.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

from thaw.data.leaks import leaks
from thaw.data.manifest import SPLITS, Manifest
from thaw.data.split_units import earlier_splits, names_of_rows, split_units
from thaw.errors import DataError
from thaw.formats import percent
from thaw.recipe import SplitSettings

MIN_UNITS = {"train": 2, "val": 1, "test": 1}
"""Minimum number of units of each class in each split; 0 for a test split that is not requested."""

_LARGE = 2
"""How many times the images of the smallest split a unit has at least that goes to train."""

_ALWAYS_SMALL = 10
"""Images of a unit that are never too many."""


@dataclass(frozen=True)
class SplitResult:
    """A manifest in which every readable image has a split, and remarks for the user."""

    manifest: Manifest
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Unit:
    """Rows that stay together, their classes, their number in [0, 1), and their split in an earlier run."""

    rows: tuple[int, ...]
    classes: frozenset[str]
    number: float
    previous_split: str | None


@dataclass(frozen=True)
class _Fractions:
    """The fractions of the units in validation and test; each split is one interval of numbers."""

    val: float
    test: float

    @property
    def minimum(self) -> dict[str, int]:
        return MIN_UNITS if self.test else {**MIN_UNITS, "test": 0}

    def split_of(self, number: float) -> str:
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


def assign(
    manifest: Manifest,
    settings: SplitSettings,
    previous: Manifest | None = None,
    duplicates: Sequence[tuple[int, int]] = (),
    has_settings: bool = True,
) -> SplitResult:
    """Assign a split to every readable image of a decoded manifest.

    Splits defined by the data are kept; if they have no validation split, it is taken from train.

    Args:
        manifest: The decoded images.
        settings: Fractions and seed.
        previous: Manifest of an earlier run, whose images keep their split.
        duplicates: Pairs of rows that are near-duplicates.
        has_settings: Whether an error may name a setting as a remedy.

    Raises:
        DataError: A class has too few units; the message lists all such classes.
    """
    given, rows = _given_splits(manifest), rows_to_split(manifest)
    if not any(given):
        fractions = _Fractions(settings.val, settings.test)
        units, joined = _units(manifest, rows, settings.seed, earlier_splits(previous), duplicates)
        kept = _with_splits(manifest, given, _assign_units(manifest, units, fractions, has_settings))
        # Only what an earlier run has divided can be in two splits.
        return SplitResult(kept, (*joined, *leaks(kept, duplicates)))
    if "train" not in given:
        raise DataError(
            f"{manifest.root}: the data defines splits, but no readable image is in train; put some there, or remove "
            "the splits"
        )
    if "val" in given:
        kept = _with_splits(manifest, given, {})
        return SplitResult(kept, (*_absent_classes(kept), *leaks(kept, duplicates)))
    units, joined = _units(manifest, rows, settings.seed, earlier_splits(previous, ("train", "val")), duplicates)
    fractions = _Fractions(settings.val, 0.0)
    kept = _with_splits(manifest, given, _assign_units(manifest, units, fractions, has_settings))
    note = f"the data defines no validation split; {percent(settings.val, 0)} of its train images were used for it"
    return SplitResult(kept, (note, *_absent_classes(kept), *joined, *leaks(kept, duplicates)))


def rows_to_split(manifest: Manifest) -> list[int]:
    """The readable rows whose split is not given: all, those of train without a validation split, or none."""
    given = _given_splits(manifest)
    if any(given):
        return [] if "val" in given else [row for row, split in enumerate(given) if split == "train"]
    return [row for row, status in enumerate(manifest.column("status")) if status == "ok"]


def units_needed(settings: SplitSettings, manifest: Manifest) -> int:
    """The units that each class needs among the rows to split."""
    has_test = settings.test > 0 and not any(_given_splits(manifest))
    return sum(number for split, number in MIN_UNITS.items() if has_test or split != "test")


def _given_splits(manifest: Manifest) -> list[str | None]:
    """The split that the data define for each readable row."""
    pairs = zip(manifest.column("split"), manifest.column("status"), strict=True)
    return [split if status == "ok" else None for split, status in pairs]


def _with_splits(manifest: Manifest, given: Sequence[str | None], assigned: dict[int, str]) -> Manifest:
    return manifest.with_columns({"split": [assigned.get(row, split) for row, split in enumerate(given)]})


def _units(
    manifest: Manifest,
    rows: Sequence[int],
    seed: int,
    earlier: dict[str, str],
    duplicates: Sequence[tuple[int, int]],
) -> tuple[list[_Unit], list[str]]:
    """The units to split, and a note on images that belong together and that an earlier run has in several splits.

    Each of these keeps its split, or where its file is another now that of its group, and what is new among them goes
    to train: elsewhere it would be evaluated although training has seen its like.
    """
    names, labels = names_of_rows(manifest), manifest.column("labels")
    units: list[_Unit] = []
    kept = added = 0
    for members in split_units(manifest, rows, duplicates):
        found = {earlier[name] for row in members for name in names[row] if name in earlier}
        parts: dict[str | None, list[int]] = {next(iter(found), None): members}
        if len(found) > 1:
            parts = defaultdict(list)
            for row in members:
                # The file says more than the group, which comes first.
                known = next((earlier[name] for name in reversed(names[row]) if name in earlier), None)
                parts[known or "train"].append(row)
                kept, added = kept + (known is not None), added + (known is None)
        for split, part in parts.items():
            units.append(
                _Unit(
                    rows=tuple(part),
                    classes=frozenset(label for row in part for label in labels[row]),
                    number=_pseudo_random(seed, min(name for row in part for name in names[row])),
                    previous_split=split,
                )
            )
    if not kept:
        return units, []
    new = f"; new images among them, in train: {added:,}" if added else ""
    divided = "near-duplicates, or images of one group, in different splits"
    return units, [f"an earlier run has {divided}; images that keep their split: {kept:,}{new}"]


def _pseudo_random(seed: int, name: str) -> float:
    """A number in [0, 1) that depends only on the seed and the name."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / (1 << 53)


def _assign_units(
    manifest: Manifest, units: Sequence[_Unit], fractions: _Fractions, has_settings: bool
) -> dict[int, str]:
    """The split of each row of the units."""
    counts = Counter(name for unit in units for name in unit.classes)
    _check_enough(manifest, counts, fractions, has_settings)
    rarest_first = sorted(manifest.classes, key=lambda name: counts[name])
    strata: defaultdict[str | None, list[_Unit]] = defaultdict(list)
    for unit in units:
        strata[next((name for name in rarest_first if name in unit.classes), None)].append(unit)
    splits: dict[_Unit, str] = {}
    for stratum in strata.values():
        splits |= _near_quota(sorted(stratum, key=lambda unit: unit.number), fractions)
    _ensure_minimum(manifest, rarest_first, splits, fractions)
    return {row: split for unit, split in splits.items() for row in unit.rows}


def _near_quota(stratum: Sequence[_Unit], fractions: _Fractions) -> dict[_Unit, str]:
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
    manifest: Manifest, rarest_first: Sequence[str], splits: dict[_Unit, str], fractions: _Fractions
) -> None:
    """Move units until every split has the minimum of each class, from splits that have more."""
    have = Counter((name, split) for unit, split in splits.items() for name in unit.classes)
    for name in rarest_first:
        for split, minimum in fractions.minimum.items():
            while have[name, split] < minimum:
                unit = _donor(name, split, splits, have, fractions)
                if unit is None:
                    raise DataError(
                        f"{manifest.root}: no images of {name} are available for {split}: groups, identical files, "
                        "near-duplicates or an earlier run tie them to other splits; add images of this class"
                    )
                for other in unit.classes:
                    have[other, splits[unit]] -= 1
                    have[other, split] += 1
                splits[unit] = split


def _donor(
    name: str, split: str, splits: dict[_Unit, str], have: Counter[tuple[str, str]], fractions: _Fractions
) -> _Unit | None:
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


def _check_enough(manifest: Manifest, counts: Counter[str], fractions: _Fractions, has_settings: bool) -> None:
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


def _absent_classes(manifest: Manifest) -> list[str]:
    """Notes on classes missing from splits of the data; raises `DataError` for a class missing from train."""
    counts = manifest.counts()
    present = [split for split in SPLITS if len(manifest.indices(split))]
    absent = {split: [name for name in counts if not counts[name][split]] for split in present}
    if absent["train"]:
        raise DataError(
            f"{manifest.root}: train has no image of {', '.join(absent['train'])}; add some, or remove the class"
        )
    return [f"{split} has no image of {', '.join(names)}" for split, names in absent.items() if names]
