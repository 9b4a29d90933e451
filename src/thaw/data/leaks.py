"""The same image in two splits, or under two labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

from thaw.data.manifest import SPLITS, Manifest
from thaw.formats import count


def leaks(manifest: Manifest, duplicates: Sequence[tuple[int, int]]) -> list[str]:
    """Notes on files, groups and near-duplicates that are in two splits of the data."""
    notes = []
    splits, digests = manifest.column("split"), manifest.column("sha256")
    groups = "of the groups found" if manifest.grouping else "groups"
    for column, what in (("sha256", "identical images"), ("group", groups)):
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


def conflicting_labels(manifest: Manifest) -> list[str]:
    """A note on readable files with equal bytes and different labels, with their number and the first pair."""
    paths, labels = manifest.column("path"), manifest.column("labels")
    first: dict[str, int] = {}
    conflicts: dict[str, tuple[int, int]] = {}
    for row, (digest, status) in enumerate(zip(manifest.column("sha256"), manifest.column("status"), strict=True)):
        if status != "ok":
            continue
        earlier = first.setdefault(digest, row)
        if set(labels[earlier]) != set(labels[row]):
            conflicts.setdefault(digest, (earlier, row))
    if not conflicts:
        return []
    one, other = (f"{paths[row]} ({'|'.join(labels[row]) or 'no label'})" for row in next(iter(conflicts.values())))
    found = f"{count(len(conflicts), 'image')} in files with equal bytes but different labels"
    return [f"conflicting labels: {found}, the first in {one} and {other}; correct or remove one of them"]
