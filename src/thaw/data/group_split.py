"""Splits that keep groups together, of which those that Thaw found never stop a run.

Groups that the data or a setting gives are kept whatever they cost. Those that were found are a guess: they are dropped
where images of an earlier run would have to change their split, and where a class would have too few units.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from thaw.data.groups import without_groups
from thaw.data.manifest import Manifest
from thaw.data.split import SplitResult, assign, rows_to_split, units_needed
from thaw.data.split_units import earlier_splits, split_units
from thaw.errors import DataError
from thaw.formats import count, listed
from thaw.recipe import SplitSettings

_KEPT = "images of one group stay in the same split; --group-by none splits them one by one"
_EARLIER = "an earlier run, whose images keep their split; to keep groups together, write to another folder with --runs"


def assign_groups(
    manifest: Manifest,
    settings: SplitSettings,
    previous: Manifest | None = None,
    duplicates: Sequence[tuple[int, int]] = (),
    has_settings: bool = True,
) -> SplitResult:
    """As `assign`, but groups that were found are dropped where they conflict with an earlier run or leave too little.

    Without settings (`has_settings`), neither errors nor notes name one as a remedy.

    Raises:
        DataError: A class has too few units even without them, or because of groups that were given.
    """
    rows = rows_to_split(manifest)
    if not manifest.grouping or not rows:
        return assign(manifest, settings, previous, duplicates, has_settings)
    kept, torn = _without_torn(manifest, rows, previous)
    enough, few = with_enough_groups(kept, rows, duplicates, units_needed(settings, manifest))
    notes = [_KEPT] if has_settings else []
    if torn:
        verb = "is" if torn == 1 else "are"
        notes.append(f"{count(torn, 'group')} of them {verb} divided between splits by {_EARLIER}")
    if few:
        notes.append(f"too few groups to split, so these images are split one by one: {listed(few)}")
    if not any(kept.column("group")):
        enough, notes = without_groups(manifest), [f"these groups are not used: they are divided by {_EARLIER}"]
    try:
        result = assign(enough, settings, previous, duplicates, has_settings)
    except DataError:
        # Raised again where groups are not the reason.
        result = assign(without_groups(manifest), settings, previous, duplicates, has_settings)
        notes = ["these groups are not used: with them a split would have no image of some class"]
    return SplitResult(result.manifest, (*notes, *result.notes))


def with_enough_groups(
    manifest: Manifest, rows: Sequence[int], duplicates: Sequence[tuple[int, int]], needed: int
) -> tuple[Manifest, tuple[str, ...]]:
    """The manifest without found groups for the images of classes that have fewer than `needed` units.

    Args:
        manifest: The images; groups that were given are left as they are.
        rows: The rows to count in.
        duplicates: Pairs of rows that are near-duplicates.
        needed: Units of each class, at least.

    Returns:
        The manifest, and the classes without groups.
    """
    if not manifest.grouping:
        return manifest, ()
    labels = manifest.column("labels")
    units: defaultdict[str, int] = defaultdict(int)
    for members in split_units(manifest, rows, duplicates):
        for name in {name for row in members for name in labels[row]}:
            units[name] += 1
    few = tuple(name for name in manifest.classes if 0 < units[name] < needed)
    if not few:
        return manifest, ()
    names = manifest.column("group")
    left = [None if set(few) & set(own) else group for own, group in zip(labels, names, strict=True)]
    return manifest.with_columns({"group": left}), few


def _without_torn(manifest: Manifest, rows: Sequence[int], previous: Manifest | None) -> tuple[Manifest, int]:
    """The manifest without the groups whose images an earlier run has in several splits, and their number."""
    earlier, names, digests = earlier_splits(previous), manifest.column("group"), manifest.column("sha256")
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        split = earlier.get(f"sha256 {digests[row]}")
        if names[row] and split:
            splits[names[row]].add(split)
    torn = {name for name, found in splits.items() if len(found) > 1}
    if not torn:
        return manifest, 0
    return manifest.with_columns({"group": [None if name in torn else name for name in names]}), len(torn)
