"""Which images of a folder can be asked for: those that are readable, without a label, and not seen before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from thaw.data.manifest import Manifest
from thaw.data.walk import natural_key
from thaw.labelling.queue import FailedImage


@dataclass(frozen=True)
class Candidates:
    """Rows of a manifest.

    Attributes:
        labelled: Rows with a label that is used.
        waiting: Rows without a label that can be asked for.
        duplicates: How many rows without a label are identical to one that is labelled or waiting, or near-duplicates.
        errors: Images that cannot be read, and images with equal bytes under different labels.

    Labelled and waiting rows are in an order that depends on the content of the files, not on their names.
    """

    labelled: tuple[int, ...]
    waiting: tuple[int, ...]
    duplicates: int
    errors: tuple[FailedImage, ...]


def find_candidates(manifest: Manifest, pairs: Sequence[tuple[int, int]], excluded: Collection[int] = ()) -> Candidates:
    """Divide the rows of a decoded manifest.

    Args:
        manifest: With labels, and with what decoding found out about each file.
        pairs: Rows that are near-duplicates; files with equal bytes count as one image in any case.
        excluded: Rows without a label that are left out, and of which others are no duplicates.
    """
    paths, labels, digests, status, reasons = (
        manifest.column(name) for name in ("path", "labels", "sha256", "status", "reason")
    )
    readable = [row for row in range(len(manifest)) if status[row] == "ok" and row not in excluded]
    # Files with equal bytes have equal features; their names decide.
    readable.sort(key=lambda row: (digests[row], natural_key(paths[row])))
    conflicts = _conflicts(manifest, readable)
    with_label = [row for row in readable if labels[row]]
    # Not every pair of many identical files is among the pairs, so each file counts as the first one of its content.
    firsts: dict[str, int] = {}
    for row in readable:
        firsts.setdefault(digests[row], row)
    of_contents = [(firsts.get(digests[one], one), firsts.get(digests[other], other)) for one, other in pairs]
    waiting = not_seen(list(firsts.values()), [firsts[digests[row]] for row in with_label], of_contents)
    unreadable = {row: reasons[row] for row in range(len(manifest)) if status[row] != "ok"}
    failed = sorted((unreadable | conflicts).items())
    return Candidates(
        labelled=tuple(row for row in with_label if row not in conflicts),
        waiting=tuple(waiting),
        duplicates=len(readable) - len(with_label) - len(waiting),
        errors=tuple(FailedImage(paths[row], error) for row, error in failed),
    )


def not_seen(rows: Sequence[int], labelled: Sequence[int], pairs: Sequence[tuple[int, int]]) -> list[int]:
    """The rows, in their order, that are neither labelled nor paired with a labelled one or with one before them."""
    near: defaultdict[int, set[int]] = defaultdict(set)
    for first, second in pairs:
        near[first].add(second)
        near[second].add(first)
    seen, found = set(labelled), []
    for row in rows:
        if row not in seen and near[row].isdisjoint(seen):
            found.append(row)
            seen.add(row)
    return found


def _conflicts(manifest: Manifest, rows: Sequence[int]) -> dict[int, str]:
    """The rows whose label differs from that of another file with equal bytes, with the sentence that says so."""
    paths, labels, digests = (manifest.column(name) for name in ("path", "labels", "sha256"))
    equal: defaultdict[str, list[int]] = defaultdict(list)
    for row in rows:
        if labels[row]:
            equal[digests[row]].append(row)
    found = {}
    for members in equal.values():
        for row in members:
            other = next((other for other in members if labels[other] != labels[row]), None)
            if other is not None:
                own, different = labels[row][0], labels[other][0]
                found[row] = f"conflicting labels: {own} here, {different} for {paths[other]} with equal bytes"
    return found
