"""Images that must stay together when data is split: one *split unit* each.

These are the images of a group, identical files, and near-duplicates; a file in two groups merges them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from thaw.data.manifest import SPLITS, Manifest


def split_units(manifest: Manifest, rows: Sequence[int], duplicates: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """The rows of each unit: connected by near-duplication, identical files or groups (union-find)."""
    names = names_of_rows(manifest)
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
    """The number of the unit of each row, (N,); `duplicates` are pairs of near-duplicates."""
    unit_of = {
        row: number
        for number, members in enumerate(split_units(manifest, rows.tolist(), duplicates))
        for row in members
    }
    return np.array([unit_of[row] for row in rows.tolist()])


def names_of_rows(manifest: Manifest) -> list[tuple[str, ...]]:
    """The names that identify each row: its group, if it has one, and the SHA-256 of its file."""
    pairs = zip(manifest.column("group"), manifest.column("sha256"), strict=True)
    return [(f"group {group}", f"sha256 {digest}") if group else (f"sha256 {digest}",) for group, digest in pairs]


def with_older(known: Manifest, older: Manifest) -> Manifest:
    """The images of an earlier run, then those that only an older one has in a split.

    The latter are without their groups, whose names may mean something else by now.
    """
    digests = known.table.filter(pc.is_valid(known.table.column("split"))).column("sha256")
    is_known = pc.is_in(older.table.column("sha256"), value_set=digests.combine_chunks())
    only_older = older.table.filter(pc.and_(pc.is_valid(older.table.column("split")), pc.invert(is_known)))
    added = replace(older, table=only_older).with_columns({"group": [None] * len(only_older)})
    return replace(known, table=pa.concat_tables([known.table, added.table]))


def earlier_splits(previous: Manifest | None, allowed: Sequence[str] = SPLITS) -> dict[str, str]:
    """The split of each name, such as `sha256 …`, in an earlier run; train for one that it has in several."""
    found: dict[str, str] = {}
    if previous is not None:
        for names, split in zip(names_of_rows(previous), previous.column("split"), strict=True):
            for name in names if split in allowed else ():
                found[name] = split if found.get(name, split) == split else "train"
    return found
