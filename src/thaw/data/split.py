"""Splits into train, validation and test that stay stable when images are added.

Images that must stay together form one split unit (see `thaw.data.split_units`). Each unit has a pseudo-random number
in [0, 1), a hash of the seed and its name. Numbers below the test fraction go to test, numbers from there to test + val
to validation, and the rest to train. Then, per class, the fewest units with numbers nearest a threshold move until each
split is within a third of its quota (or one unit) and contains every class. A unit with far more images than the quota
goes to train. In multilabel data a unit counts towards the quota of its rarest class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from thaw.data.leaks import leaks
from thaw.data.manifest import SPLITS, Manifest
from thaw.data.split_units import earlier_splits, names_of_rows, split_units
from thaw.data.unit_splits import MIN_UNITS, Fractions, Unit, assign_units, pseudo_random
from thaw.errors import DataError
from thaw.formats import percent
from thaw.recipe import SplitSettings


@dataclass(frozen=True)
class SplitResult:
    """A manifest in which every readable image has a split, and remarks for the user."""

    manifest: Manifest
    notes: tuple[str, ...] = ()


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
        fractions = Fractions(settings.val, settings.test)
        units, joined = _units(manifest, rows, settings.seed, earlier_splits(previous), duplicates)
        kept = _with_splits(manifest, given, assign_units(manifest, units, fractions, has_settings))
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
    fractions = Fractions(settings.val, 0.0)
    kept = _with_splits(manifest, given, assign_units(manifest, units, fractions, has_settings))
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
) -> tuple[list[Unit], list[str]]:
    """The units to split, and a note on images that belong together and that an earlier run has in several splits.

    Each of these keeps its split, or where its file is another now that of its group, and what is new among them goes
    to train: elsewhere it would be evaluated although training has seen its like.
    """
    names, labels = names_of_rows(manifest), manifest.column("labels")
    units: list[Unit] = []
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
                Unit(
                    rows=tuple(part),
                    classes=frozenset(label for row in part for label in labels[row]),
                    number=pseudo_random(seed, min(name for row in part for name in names[row])),
                    previous_split=split,
                )
            )
    if not kept:
        return units, []
    new = f"; new images among them, in train: {added:,}" if added else ""
    divided = "near-duplicates, or images of one group, in different splits"
    return units, [f"an earlier run has {divided}; images that keep their split: {kept:,}{new}"]


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
